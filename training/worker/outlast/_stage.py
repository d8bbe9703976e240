"""Hands checkpoints to the supervisor, which makes them durable."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _checkpoint, _failure
from ._events import Events


class Stage:
    """Writes each checkpoint into a folder of its own.

    The folder gets its name when it is complete, and only then the supervisor
    hears of it: what a worker that was killed meanwhile leaves behind looks
    like nothing. Nothing is synced here; the supervisor does that.
    """

    def __init__(self, folder: Path, events: Events) -> None:
        self._folder = folder
        self._events = events
        self._count = 0
        self._full = False

    def put(self, step: int, reason: str, fill: Callable[[Path], dict[str, Any]]) -> bool:
        """Has fill write the files, adds the state that it returns, and hands over.

        A full disk is no reason to stop training: it is said, and the answer is
        False. The end of training is one, since nothing would be left of it.
        """
        self._count += 1
        name = f"{step}-{self._count}"
        part = self._folder / f".{name}.part"
        try:
            part.mkdir(parents=True)
            state = fill(part)
            (part / _checkpoint.STATE_FILE).write_text(json.dumps(state))
            part.rename(self._folder / name)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if reason == "final" or _failure.kind(error) != "disk_full":
                raise
            self._say_full(step, error)
            return False
        self._full = False
        self._events.send("checkpoint", step=step, path=str(self._folder / name), reason=reason)
        return True

    def _say_full(self, step: int, error: BaseException) -> None:
        if not self._full:  # once, not at every step
            self._events.send("note", kind="disk_full", step=step, message=_failure.message(error))
        self._full = True


class Pace:
    """How often checkpoints are due: after so many steps, else after so many seconds."""

    def __init__(self, every: dict[str, float]) -> None:
        self._every = every
        self.saved(0)

    def saved(self, step: int) -> None:
        """Takes note of a checkpoint, or of the try of one."""
        self._step, self._time = step, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether after step it is time for the next one."""
        if steps := self._every.get("steps"):
            return step - self._step >= steps
        if seconds := self._every.get("seconds"):
            return time.monotonic() - self._time >= seconds
        return False
