"""The job: what to train, how, and how far it is."""

from __future__ import annotations

import json
import operator
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _rng, _state
from ._batches import Position
from ._events import PROTOCOL, Events

# Exit status of a worker that saved and ended because it was asked to
# (EX_TEMPFAIL: try again later).
PAUSED = 75

# Progress is for people: ten times a second is more than they can read.
PROGRESS_SECONDS = 0.1

STATE_FILE = "outlast.json"


class Pause(SystemExit):
    """Ends the worker after it has saved. No ``except Exception`` catches it."""

    def __init__(self) -> None:
        super().__init__(PAUSED)


class Job:
    """One model to train. Its methods are for the training thread only."""

    def __init__(self, spec: dict[str, Any], events: Events) -> None:
        self.name: str = spec["name"]
        self.run: str = spec["run"]
        self.params: dict[str, Any] = spec["params"]
        self.seed: int = spec["seed"]
        self.attempt: int = spec["attempt"]
        self.batch_size: int = spec["batch_size"]
        self.grad_accum: int = spec["grad_accum"]
        self.effective_batch: int = spec["effective_batch"]
        self.precision: str = spec["precision"]
        self.lora_rank: int = spec["lora_rank"]
        self.device: str = spec["device"]
        self.grad_checkpointing: bool = spec["grad_checkpointing"]
        self.memory_fraction: float = spec["memory_fraction"]
        self.dir = Path(spec["dir"])
        self.dir.mkdir(parents=True, exist_ok=True)

        self._events = events
        self._staging = Path(spec["staging"]) if spec["staging"] else None
        self._every: dict[str, float] = spec["checkpoint_every"]
        self._checkpoint: dict[str, Any] | None = spec["checkpoint"]
        self._tracked: dict[str, Any] = {}
        self._restored: dict[str, Any] | None = None
        self._position: Position | None = None
        self._step = 0
        self._total = 0
        self._pending: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self._staged = 0
        self._told = 0.0
        self._asked_to_pause = False
        self._asked_to_save = False
        self._looped = False
        self._in_loop = False
        self._in_body = False
        self._said_restored = False
        self._finished = False

    def __repr__(self) -> str:
        return f"<outlast job {self.run}/{self.name}, attempt {self.attempt}, step {self._step}>"

    @property
    def step(self) -> int:
        """The number of the present step: within a loop, what steps() yielded."""
        self._settle()
        return self._step

    @property
    def epoch(self) -> int:
        """The present epoch of batches(), from 0."""
        return self._position.epoch if self._position else 0

    def track(self, **objects: Any) -> None:
        """Names what a checkpoint holds, and restores the latest one at once.

        Objects need state_dict and load_state_dict, or are tensors, arrays,
        generators, dicts or lists. The global random generators are part of it
        too. They get their state when the loop begins: what a program draws
        before that, such as a split of its data, must be the same every time.
        """
        if self._looped:
            raise RuntimeError("job.track comes before the loop: it restores the step to begin at")
        for name, value in objects.items():
            _state.check(name, value)
        self._tracked.update(objects)
        folder = self.load()
        if folder is None:
            return
        state = json.loads((folder / STATE_FILE).read_text())
        for name in objects:
            if name not in state["files"]:
                has = ", ".join(sorted(state["files"])) or "nothing"
                raise KeyError(
                    f"the checkpoint at step {state['step']} holds {has}, but not {name!r}. "
                    "Track the objects that were tracked when it was made, or train with --fresh."
                )
            _state.put(objects[name], _state.load(folder / state["files"][name]))
        self._restored = state
        self._step = self._saved_step = state["step"]
        self._last = state["metrics"]
        self._say_restored()

    def _say_restored(self) -> None:
        if not self._said_restored:
            self._events.send("restored", step=self._step)
            self._said_restored = True

    def steps(self, total: int) -> Iterator[int]:
        """Yields the numbers of the steps still to do, of 0 to total - 1.

        After each one it saves if a checkpoint is due, and ends the worker if it
        was asked to pause. A step that is left by ``break`` counts as done.
        """
        total = _whole(total, "job.steps(total)")
        self._enter(total)
        try:
            while self._step < total:
                self._in_body = True
                yield self._step
                self._in_body = False
                self._completed()
        finally:
            self._leave()

    def batches(self, loader: Any, epochs: int) -> Iterator[Any]:
        """Yields the batches of a data loader, for so many epochs.

        After a resume it goes on with the batch that would have come next, in
        the order of the run that was not disturbed. job.epoch and job.step say
        where it is.
        """
        epochs = _whole(epochs, "job.batches(loader, epochs)")
        try:
            total = len(loader) * epochs
        except TypeError:  # a loader without a length
            total = 0
        self._enter(total)
        position = self._position = Position(loader)
        if self._restored and self._restored["position"]:
            position.restore(self._restored["position"])
        try:
            while position.epoch < epochs:
                batches = position.begin()
                for batch in batches:
                    position.taken += 1
                    self._in_body = True
                    yield batch
                    self._in_body = False
                    self._completed()
                position.next_epoch()
        finally:
            self._leave()

    def _enter(self, total: int) -> None:
        if self._in_loop:
            raise RuntimeError("one loop over job.steps or job.batches at a time")
        if self._looped:
            raise RuntimeError("a job has one loop over job.steps or job.batches")
        self._looped = self._in_loop = True
        self._total = total
        if self._restored:
            _rng.set_state(self._restored["rng"])
        self._say_restored()
        self._saved_at = time.monotonic()
        self._progress(force=True)

    def _leave(self) -> None:
        self._in_loop = False

    def _settle(self) -> None:
        """Counts a step that was left by break.

        An exception leaves the loop in the same way, but the step that raised
        it is not done: that shows only when the program goes on.
        """
        if self._in_body and not self._in_loop:
            self._in_body = False
            self._flush_metrics()
            self._step += 1
            self._progress(force=True)

    def _completed(self) -> None:
        """Takes note of a step whose body has run."""
        self._flush_metrics()
        self._step += 1
        self._progress(force=self._step == self._total)
        if self._asked_to_pause:
            self._pause()
        if self._asked_to_save:
            self._asked_to_save = False
            self._save("asked")
        elif self._due():
            self._save("due")

    def _due(self) -> bool:
        if steps := self._every.get("steps"):
            return self._step - self._saved_step >= steps
        if seconds := self._every.get("seconds"):
            return time.monotonic() - self._saved_at >= seconds
        return False

    def _progress(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self._events.send("progress", step=self._step, total=self._total)

    def log(self, **metrics: Any) -> None:
        """Notes numbers for this step; several calls in one step are one entry."""
        self._settle()
        self._pending.update(_numbers(metrics))
        self._last = {**self._last, **self._pending}

    def _flush_metrics(self) -> None:
        if self._pending:
            self._events.send("metrics", step=self._step, time=time.time(), values=self._pending)
            self._pending = {}

    def save(self) -> None:
        """Saves now. Within a loop it is done at the end of the step."""
        if self._in_loop:
            self._asked_to_save = True
            return
        self._settle()
        self._flush_metrics()
        self._save("asked")

    def load(self) -> Path | None:
        """The folder of the latest verified checkpoint, or None."""
        return Path(self._checkpoint["path"]) if self._checkpoint else None

    def _save(self, reason: str) -> None:
        self._saved_at, self._saved_step = time.monotonic(), self._step
        if self._staging is None:
            return
        self._staged += 1
        folder = self._staging / f"{self._step}-{self._staged}"
        folder.mkdir(parents=True)
        files = {name: _state.save(folder, name, value) for name, value in self._tracked.items()}
        state = {
            "format": 1,
            "step": self._step,
            "total": self._total,
            "position": self._position.state() if self._position else None,
            "rng": _rng.get_state(),
            "metrics": self._last,
            "files": files,
        }
        (folder / STATE_FILE).write_text(json.dumps(state))
        self._events.send("checkpoint", step=self._step, path=str(folder), reason=reason)

    def _pause(self) -> None:
        self._save("pause")
        self._events.send("paused", step=self._step)
        raise Pause

    def finish(self, **metrics: Any) -> None:
        """Seals the result: the present state becomes final, the model is done."""
        if self._finished:
            raise RuntimeError("job.finish was called twice: the model is done")
        self._settle()
        self._say_restored()
        self._flush_metrics()
        # Not logged: they belong to the model, and there is no step of this number.
        self._last = {**self._last, **_numbers(metrics)}
        self._save("final")
        self._progress(force=True)
        self._events.send("finish", step=self._step, metrics=self._last)
        self._finished = True

    def _on_sigterm(self, *_: Any) -> None:
        self._asked_to_pause = True


def _whole(value: Any, call: str) -> int:
    """The whole number that a caller of call gave."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{call}: a {type(value).__name__} is no whole number. "
            "A number of steps goes to job.steps, a data loader to job.batches."
        ) from None


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics as plain numbers."""
    plain = {}
    for name, value in metrics.items():
        if hasattr(value, "item"):  # a tensor or a numpy number
            value = value.item()
        if not isinstance(value, (int, float, str)):
            raise TypeError(
                f"job.log({name}=...): a {type(value).__name__} is no number. "
                "Log one number for each name, such as loss.item()."
            )
        plain[name] = value
    return plain


_the_job: Job | None = None


def job() -> Job:
    """The job of this process; outside a run, a stand-alone one."""
    global _the_job
    if _the_job is None:
        path = os.environ.get("OUTLAST_JOB")
        _the_job = _worker(json.loads(Path(path).read_text())) if path else _stand_alone()
        _rng.seed(_the_job.seed)
    return _the_job


def _worker(spec: dict[str, Any]) -> Job:
    # Taken, not read: what this process starts (a data loader's processes, on some
    # systems with a fresh Python) learns about the job, but does not speak for it.
    fd = os.environ.pop("OUTLAST_EVENTS_FD", None)
    if not fd:
        return Job({**spec, "staging": None}, Events(None))
    events = Events(int(fd))
    events.send("hello", protocol=PROTOCOL, pid=os.getpid(), python=sys.version.split()[0])
    made = Job(spec, events)
    # The supervisor decides what an interrupt means; it asks for a pause by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, made._on_sigterm)
    if hasattr(os, "register_at_fork"):  # a data loader ends its processes by SIGTERM
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    return made


def _stand_alone() -> Job:
    name = Path(sys.argv[0]).stem or "job"
    spec = {
        "name": name,
        "run": "stand-alone",
        "params": {},
        "seed": 0,
        "attempt": 1,
        "batch_size": 16,
        "grad_accum": 1,
        "effective_batch": 16,
        "precision": "fp32",
        "lora_rank": 16,
        "device": "cpu",
        "grad_checkpointing": False,
        "memory_fraction": 0.0,
        "dir": tempfile.mkdtemp(prefix=f"outlast-{name}-"),
        "staging": None,
        "checkpoint": None,
        "checkpoint_every": {},
    }
    return Job(spec, Events(None))
