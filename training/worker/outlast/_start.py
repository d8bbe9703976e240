"""Finds the job of this process."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from . import _checkpoint, _failure, _imports, _loaders, _rng
from ._events import PROTOCOL, Events
from ._job import Job

_the_job: Job | None = None


def job() -> Job:
    """The job of this process; outside a run, a stand-alone one.

    In a run it seeds the global random generators with job.seed, once.
    """
    global _the_job
    if _the_job is None:
        path = os.environ.get("OUTLAST_JOB")
        _the_job = _worker(json.loads(Path(path).read_text())) if path else _stand_alone()
    return _the_job


def _worker(spec: dict[str, Any]) -> Job:
    # Taken, not read: what this process starts (a data loader's processes, on some
    # systems with a fresh Python) learns about the job, but does not speak for it.
    fd = os.environ.pop("OUTLAST_EVENTS_FD", None)
    if not fd:
        made = Job({**spec, "staging": None}, Events(None))
        _rng.seed(made.seed)
        return made
    events = Events(int(fd))
    events.send("hello", protocol=PROTOCOL, pid=os.getpid(), python=sys.version.split()[0])
    made = Job(spec, events)
    if sealed(made):
        sys.exit(0)
    _take_signals(made)
    _rng.seed(made.seed)
    _imports.after("torch", lambda torch: _cap(torch, made))
    if threads := spec.get("threads"):  # a fork's torch was imported when nobody knew
        _imports.after("torch", lambda torch: torch.set_num_threads(threads))
    _loaders.limit(spec.get("loader_workers"))
    atexit.register(_end, made, os.getpid())
    return made


def _end(made: Job, pid: int) -> None:
    """Python ends, or a fork of it. Where an exception ends it there is no state worth keeping."""
    if os.getpid() != pid or hasattr(sys, "last_value"):
        return
    try:
        made._end()
    except BaseException as error:  # the exit status would not show it
        made._events.send("failed", **_failure.describe(error, error.__traceback__))
        raise


def sealed(made: Job) -> bool:
    """Whether the checkpoint is the result: job.finish was reached, and only the seal was lost.

    Then the program is not run again: its loop would have no step, and what comes
    behind it might miss what the loop leaves behind.
    """
    folder = made.load()
    there = folder is not None and (folder / _checkpoint.STATE_FILE).exists()
    state = _checkpoint.read(folder) if there else {}
    if not state.get("final"):
        return False
    made._events.send("restored", step=state["step"], versions=_imports.versions())
    made._events.send("progress", step=state["step"], total=state["total"])
    made._events.send("finish", step=state["step"], metrics=state["metrics"])
    return True


def _take_signals(made: Job) -> None:
    # The supervisor decides what an interrupt means; it asks for a pause by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, made._on_sigterm)
    if not hasattr(os, "register_at_fork"):
        return
    # A data loader ends its processes by SIGTERM. One that comes before the child
    # has its own answer to it would be forgotten, so it has to wait until then.
    mask = threading.local()

    def before() -> None:
        mask.old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.old)

    def child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.old)

    os.register_at_fork(before=before, after_in_parent=parent, after_in_child=child)


def _cap(torch: Any, made: Job) -> None:
    """Has torch take no more than its share of the device.

    It is done when the program first uses the device: to do it now would
    initialise CUDA, after which a data loader can fork no more.
    """
    if made.memory_fraction <= 0 or not made.device.startswith("cuda"):
        return
    lazily = getattr(torch.cuda, "_lazy_call", None)
    if lazily:
        fraction = min(1.0, made.memory_fraction)
        # By its number: without one the first would be meant, and torch refuses a name that has none.
        device = made.device if ":" in made.device else None
        lazily(lambda: torch.cuda.set_per_process_memory_fraction(fraction, device))


def _stand_alone() -> Job:
    name = Path(sys.argv[0]).stem or "job"
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
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
        "device": "cuda" if cuda else "cpu",
        "grad_checkpointing": False,
        "memory_fraction": 0.0,
        "dir": tempfile.mkdtemp(prefix=f"outlast-{name}-"),
        "staging": None,
        "checkpoint": None,
        "checkpoint_every": {},
    }
    return Job(spec, Events(None))
