"""Plays a supervisor whose workers die: real processes, really killed, resumed until they are done.

Workers are forked from a process that has imported torch already, so that a test
can afford many of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import worker_rig

PATIENCE = 120

# Runs before every program: it can end the worker at the step it is told to,
# and has a name for all that training has come to.
PRELUDE = '''
import hashlib
import os
import random
import signal

from outlast import _state


def _dies(loop):
    """Ends the worker in the loop, with no chance to say anything: at the end of a step's body, or before it."""
    deaths = job.params.get("deaths", [])

    def wrapped(*args, **options):
        for item in loop(*args, **options):
            if [job.step, "before"] in deaths:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item
            if [job.step, "after"] in deaths:
                os.kill(os.getpid(), signal.SIGKILL)

    return wrapped


job.steps, job.batches = _dies(job.steps), _dies(job.batches)


def digest(*values):
    """Everything there is in values, to the bit."""
    sha = hashlib.sha256()

    def add(value):
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            if value.layout is not torch.strided:
                value = value.to_dense()
            sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
            bits = value.reshape(-1).contiguous().view(torch.uint8)
            sha.update(bytes(bits.tolist()))
        elif hasattr(value, "tobytes"):
            sha.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        elif isinstance(value, dict):
            for key, inner in value.items():
                sha.update(repr(key).encode())
                add(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                add(inner)
        elif hasattr(value, "__qualname__"):
            sha.update(value.__qualname__.encode())
        else:
            sha.update(repr(value).encode())

    for value in values:
        add(_state.get(value))
    return sha.hexdigest()
'''


def attempt(folder: str) -> None:
    """What a forked worker does: the same as ``python -m outlast``."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)
    path = Path(folder)
    log = os.open(path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    events = os.open(path / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.environ["OUTLAST_EVENTS_FD"] = str(events)
    import torch
    from outlast import _run

    torch.set_num_threads(1)
    status = _run.main(str(path / "job.json"))
    sys.stdout.flush()
    os._exit(status)


@dataclass
class Trained:
    """What is left of a model that was trained in several attempts."""

    metrics: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    finish: dict[str, Any] | None = None
    attempts: int = 0
    restored: list[int] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # of the checkpoints

    @property
    def result(self) -> Any:
        """What must not depend on kills."""
        assert self.finish, "it never finished"
        return self.metrics, self.finish["step"], self.finish["metrics"]


class Supervisor:
    """Trains one program, attempt by attempt."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._vault: list[dict[str, Any]] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch", "numpy"])

    def train(self, source: str, deaths: list[list[Any]], seed: int = 0, **job: Any) -> Trained:
        """Works until the program has finished. deaths says after or before which step a worker is killed;
        each happens once. Mostly an attempt goes on from the newest checkpoint, sometimes from the one before."""
        choose = random.Random(seed)
        self._vault, left, trained = [], list(deaths), Trained()
        while trained.finish is None:
            assert trained.attempts <= len(deaths), f"it dies by itself\n{self._said}"
            from_ = self._vault[-2] if len(self._vault) > 1 and choose.random() < 0.25 else (self._vault or [None])[-1]
            if from_ in self._vault:
                del self._vault[self._vault.index(from_) + 1 :]
            self._attempt(source, left[:1], from_, trained, **job)
            left = left[1:]
        return trained

    def _attempt(self, source: str, deaths: list[Any], checkpoint: Any, trained: Trained, **job: Any) -> None:
        self._count += 1
        folder = self._folder / f"attempt-{self._count}"
        (folder / "staging").mkdir(parents=True)
        (folder / "prelude.py").write_text(PRELUDE)
        (folder / "code.py").write_text(source)
        code = {"kind": "cell", "path": str(folder / "code.py"), "shared": [str(folder / "prelude.py")]}
        params = {**job.pop("params", {}), "deaths": deaths}
        job = {"checkpoint_every": {"steps": 3}, "grad_accum": 1, **job}
        trained.attempts += 1
        spec = worker_rig.spec(folder, code=code, params=params, checkpoint=checkpoint, attempt=trained.attempts, **job)
        (folder / "job.json").write_text(json.dumps(spec))
        process = self._context.Process(target=attempt, args=(str(folder),))
        process.start()
        process.join(PATIENCE)
        with contextlib.suppress(ProcessLookupError):  # its data loader's processes
            os.killpg(process.pid, signal.SIGKILL)
        self._said = (folder / "log.txt").read_text()
        assert process.exitcode in (0, -signal.SIGKILL), f"exit status {process.exitcode}\n{self._said}"
        self._take(folder, trained)

    def _take(self, folder: Path, trained: Trained) -> None:
        for line in (folder / "events.jsonl").read_text().splitlines():
            event = json.loads(line)
            kind = event["event"]
            if kind == "restored":
                trained.restored.append(event["step"])
                trained.metrics = [m for m in trained.metrics if m[0] < event["step"]]
            elif kind == "metrics":
                trained.metrics.append((event["step"], event["values"]))
            elif kind == "checkpoint":
                self._save(event, trained)
            elif kind == "note":
                trained.notes.append(event)
            elif kind == "finish":
                trained.finish = event

    def _save(self, event: dict[str, Any], trained: Trained) -> None:
        folder = self._folder / f"checkpoint-{self._count}-{Path(event['path']).name}"
        shutil.copytree(event["path"], folder)
        shutil.rmtree(event["path"])
        write_manifest(folder)
        self._vault.append({"step": event["step"], "path": str(folder)})
        trained.steps.append(event["step"])


def write_manifest(folder: Path) -> None:
    """Lists the files of a checkpoint as the supervisor does."""
    files = [
        {"path": p.name, "size": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
        for p in sorted(folder.iterdir())
        if p.is_file()
    ]
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))
