"""Hands checkpoints to the supervisor, which makes them durable."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _checkpoint, _failure, _files, _room
from ._events import Events

# A checkpoint in memory that the supervisor has saved: the next one is written
# over it, as memory that was used before takes a new content faster.
SPARE = "spare"


class Stage:
    """Writes each checkpoint into a folder of its own.

    The folder gets its name when it is complete, and only then the supervisor
    hears of it: what a worker that was killed meanwhile leaves behind looks
    like nothing. Nothing is synced here; the supervisor does that.

    It is written in memory where there is a folder and room for it: training
    goes on as soon as it is copied. Else it is written to the disk.
    """

    def __init__(self, folder: Path, events: Events, memory: Path | None = None, size: int | None = None) -> None:
        """Size is that of the checkpoint before, in bytes, if there is one."""
        self._folder = folder
        self._memory = memory
        self._size = size
        self._events = events
        self._count = 0
        self._full = False

    def put(
        self,
        step: int,
        reason: str,
        fill: Callable[[Path], dict[str, Any]],
        estimate: Callable[[], int | None] = lambda: None,
    ) -> bool:
        """Has fill write the files, adds the state that it returns, and hands over.

        A full disk is no reason to stop training: it is said, and the answer is
        False. The end of training is one, since nothing would be left of it.
        Estimate tells how large the first checkpoint will be, if that is known.
        """
        self._count += 1
        name = f"{step}-{self._count}"
        try:
            path = self._in_memory(name, fill, estimate) or self._write(self._folder, name, fill)
        except BaseException as error:
            if reason in ("final", "end") or _failure.kind(error) != "disk_full":
                raise
            self._say_full(step, error)
            return False
        self._full = False
        self._size = size_of(path)
        self._events.send("checkpoint", step=step, path=str(path), reason=reason)
        return True

    def _in_memory(self, name: str, fill: Callable[[Path], Any], estimate: Callable[[], int | None]) -> Path | None:
        """Writes it in memory; None if there is no room, or not as much as there seemed."""
        if not self._memory:
            return None
        size = estimate() if self._size is None else self._size
        if size is None or not _room.fits(self._memory, size):
            shutil.rmtree(self._memory / SPARE, ignore_errors=True)  # the machine needs it
            return None
        try:
            return self._write(self._memory, name, fill)
        except Exception as error:  # a name that is too long, say, fails on the disk as well
            if not isinstance(error, OSError) and _failure.kind(error) != "disk_full":
                raise
            return None

    def _write(self, folder: Path, name: str, fill: Callable[[Path], dict[str, Any]]) -> Path:
        part = folder / f".{name}.part"
        try:
            part.mkdir(parents=folder is self._folder)
            with contextlib.suppress(OSError):  # there is none
                (folder / SPARE).rename(part / _files.OLD)
            state = fill(part)
            (part / _checkpoint.STATE_FILE).write_text(json.dumps(state))
            shutil.rmtree(part / _files.OLD, ignore_errors=True)
            return part.rename(folder / name)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _say_full(self, step: int, error: BaseException) -> None:
        if not self._full:  # once, not at every step
            self._events.send("note", kind="disk_full", step=step, message=_failure.message(error))
        self._full = True


def of(spec: dict[str, Any], events: Events) -> Stage | None:
    """The stage of a job; None outside a run."""
    if not spec["staging"]:
        return None
    memory, before = spec.get("memory_staging"), spec["checkpoint"]
    size = size_of(Path(before["path"])) if before else 0
    return Stage(Path(spec["staging"]), events, Path(memory) if memory else None, size or None)


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class Pace:
    """How often checkpoints are due: after so many steps, else after so many seconds."""

    def __init__(self, every: dict[str, float]) -> None:
        self._steps = every.get("steps")
        self._seconds = every.get("seconds")
        self.saved(0)

    def saved(self, step: int) -> None:
        """Takes note of a checkpoint, or of the try of one."""
        self._step, self._time = step, time.monotonic()

    def due(self, step: int, now: float) -> bool:
        """Whether after step, at a monotonic time, the next one is to be made."""
        if self._steps:
            return step - self._step >= self._steps
        return bool(self._seconds) and now - self._time >= self._seconds
