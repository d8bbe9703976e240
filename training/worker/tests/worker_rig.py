"""Plays the supervisor: starts real workers, reads their events, hands checkpoints on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outlast
from outlast._events import Events

MODULE = Path(outlast.__file__).parent.parent

# How long a test waits for something that is bound to come. Far too long on
# purpose: a slow machine is no failure, and a dead worker is noticed at once.
PATIENCE = 120


def spec(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job file's content, as the supervisor writes it."""
    return {
        "protocol": 1,
        "run": "tests",
        "name": "model",
        "params": {},
        "seed": 7,
        "attempt": 1,
        "batch_size": 8,
        "grad_accum": 2,
        "effective_batch": 16,
        "precision": "fp32",
        "lora_rank": 16,
        "device": "cpu",
        "memory_fraction": 0.0,
        "grad_checkpointing": False,
        "dir": str(folder / "work"),
        "staging": str(folder / "staging"),
        "checkpoint": None,
        "checkpoint_every": {},
        "code": {"kind": "cell", "path": "", "shared": []},
    } | changes


def environment(**extra: str) -> dict[str, str]:
    """The environment of a process that finds the module and is in no run."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}
    return env | {"PYTHONPATH": str(MODULE), "OMP_NUM_THREADS": "1"} | extra


class Recorder(Events):
    """Keeps the events of a job that runs in the test's own process."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[dict[str, Any]] = []

    def send(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})


@dataclass
class Ended:
    """What is left of a worker."""

    events: list[dict[str, Any]]
    status: int
    output: str

    @property
    def kinds(self) -> list[str]:
        """The kinds of its events in their order, but for progress."""
        return [e["event"] for e in self.events if e["event"] != "progress"]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Its events of one kind."""
        return [e for e in self.events if e["event"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        """Its only event of a kind."""
        found = self.all(kind)
        assert len(found) == 1, f"{len(found)} events {kind!r}\n{self}"
        return found[0]

    @property
    def metrics(self) -> list[tuple[int, dict[str, Any]]]:
        """What it logged: steps and values, without the times."""
        return [(e["step"], e["values"]) for e in self.all("metrics")]

    @property
    def checkpoint(self) -> dict[str, Any]:
        """Its newest checkpoint, as the next attempt's job file names it."""
        newest = self.all("checkpoint")[-1]
        return {"step": newest["step"], "path": newest["path"]}

    def __str__(self) -> str:
        lines = [json.dumps(e) for e in self.events]
        return "\n".join([*lines, f"exit status {self.status}", self.output])


class Worker:
    """One attempt in a process of its own."""

    def __init__(
        self,
        folder: Path,
        source: str,
        *,
        kind: str = "cell",
        shared: tuple[str, ...] = (),
        python: Sequence[str] = (sys.executable,),
        **job: Any,
    ) -> None:
        folder.mkdir(parents=True)
        paths = []
        for i, text in enumerate((*shared, source)):
            paths.append(folder / ("code.py" if i == len(shared) else f"shared_{i + 1}.py"))
            paths[-1].write_text(text)
        *before, main = map(str, paths)
        code = {"kind": kind, "path": main, "shared": before}
        (folder / "staging").mkdir()
        (folder / "job.json").write_text(json.dumps(spec(folder, code=code, **job)))
        what = [main] if kind == "command" else ["-m", "outlast", folder / "job.json"]

        self._changed = threading.Condition()
        self._events: list[dict[str, Any]] = []
        self._over = False
        self._output = folder / "log.txt"
        events, theirs = os.pipe()
        with self._output.open("wb") as log:
            self.process = subprocess.Popen(
                [*python, *what],
                cwd=folder,
                env=environment(
                    OUTLAST_JOB=str(folder / "job.json"),
                    OUTLAST_EVENTS_FD=str(theirs),
                    OUTLAST_STAGING=str(folder / "staging"),
                ),
                stdout=log,
                stderr=log,
                pass_fds=[theirs],
                start_new_session=True,  # so that kill reaches what it started, too
            )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        self._reader.start()

    def _read(self, events: int) -> None:
        with open(events, encoding="utf-8") as lines:
            for line in lines:
                with self._changed:
                    self._events.append(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def await_event(self, kind: str) -> dict[str, Any]:
        """Waits for the first event of a kind; fails once it cannot come any more."""

        def found() -> dict[str, Any] | None:
            return next((e for e in self._events if e["event"] == kind), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._over, PATIENCE)
            event = found()
        assert event, f"no event {kind!r}\n{self.ended() if self._over else self._events}"
        return event

    def live(self) -> Iterator[dict[str, Any]]:
        """Its events as they come, to the last."""
        seen: list[dict[str, Any]] = []
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._events) > len(seen) or self._over, PATIENCE)
                new = self._events[len(seen) :]
            if not new:
                return
            seen.extend(new)
            yield from new

    def terminate(self) -> None:
        """Asks it to pause."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> Ended:
        """Waits for its end."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._over, "somebody holds the worker's events open"
        return Ended(self._events, status, self._output.read_text())

    def kill(self) -> None:
        """Ends it and whatever it started, if they have not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
