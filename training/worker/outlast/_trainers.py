"""Adapters for trainers that have a loop of their own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ._job import Job

NAMES = ("transformers", "lightning", "keras")


class Trainer(Protocol):
    """What a job asks of an adapter."""

    callback: Any

    def write(self, folder: Path) -> None:
        """Writes the trainer's own files of a checkpoint into folder."""


def make(name: str, job: Job) -> Trainer:
    """The adapter of this name. Its library is imported only now."""
    if name not in NAMES:
        raise ValueError(
            f"job.callback({name!r}): there are adapters for {', '.join(NAMES)}. For other loops use job.steps."
        )
    return importlib.import_module(f"._{name}", __package__).make(job)
