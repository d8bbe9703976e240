"""Adapters for trainers that have a loop of their own."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _numbers

if TYPE_CHECKING:
    from ._job import Job

NAMES = ("transformers", "lightning", "keras")


def make(name: str, job: Job) -> Adapter:
    """The adapter of this name. Its library is imported only now."""
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise ValueError(f"job.callback({name!r}): there are adapters for {known}. For other loops use job.steps.")
    return importlib.import_module(f"._{name}", __package__).make(job)


class Adapter:
    """What all adapters do: tell the job where a trainer is, and when to save.

    A trainer counts completed steps, as checkpoints do; the step that has just
    been completed as number n stands under n - 1 in the metrics.
    """

    callback: Any = None

    def __init__(self, job: Job) -> None:
        self.job = job
        self._values: dict[int, dict[str, Any]] = {}
        self._told = -1
        self.wanted = False  # a checkpoint, as soon as the trainer can make one
        self.state: dict[str, Any] = {}  # what a checkpoint holds besides the trainer's files

    def write(self, folder: Path) -> None:
        """Writes the trainer's own files of a checkpoint into folder."""
        raise NotImplementedError

    def begin(self, step: int, total: int) -> None:
        """Training begins, or goes on, with so many completed steps."""
        job = self.job
        if job._finished or job._in_loop:
            raise RuntimeError("a job trains once: with a trainer, or with job.steps or job.batches")
        if step == 0 and job.load():
            message = "the trainer was not told to resume, so it begins at step 0 again"
            job._events.send("note", kind="untracked", step=0, message=message)
        job._looped, job._step, job._total = True, step, max(total, 0)
        self._told = step - 1
        job._say_restored()
        job._pace.saved(step)
        job._progress()

    def completed(self, step: int) -> bool:
        """So many steps are complete. Returns whether a checkpoint is wanted now."""
        job = self.job
        job._step = step
        now = job._progressed(step == job._total)
        return job._asked_to_pause or job._asked_to_save or job._pace.due(step, now)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Notes what a trainer logged for step; it may do so in several parts."""
        numbers = {}
        for name, value in values.items():
            if hasattr(value, "item") and getattr(value, "size", 1) != 0:
                value = value.item()
            if isinstance(value, (int, float, str)):
                numbers[_numbers.free(name)] = value
        self.job._last = {**self.job._last, **numbers}
        # What comes after a step was told is a summary: it belongs to the model.
        if numbers and step > self._told:
            self._values.setdefault(step, {}).update(numbers)

    def flush(self) -> None:
        """Tells the metrics of the steps that are complete."""
        for step, values in sorted(self._values.items()):
            self.job._events.send("metrics", step=step, time=time.time(), values=values)
            self._told = step
        self._values = {}

    def save(self, step: int) -> None:
        """Stages what the trainer has saved; ends the worker if it was asked to pause."""
        job = self.job
        self.flush()
        self._told = max(self._told, step - 1)
        job._step = step
        asked, job._asked_to_save = job._asked_to_save, False
        job._save("pause" if job._asked_to_pause else "asked" if asked else "due")
        if job._asked_to_pause:
            job._pause()

    def end(self, step: int) -> None:
        """Training is over; the job's end makes the final checkpoint."""
        self.flush()
        self.job._step = step
