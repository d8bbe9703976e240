"""Fixtures of the worker module's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import worker_rig  # noqa: E402  # it stands beside this file, not in a package


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., worker_rig.Worker]]:
    """Starts workers as the supervisor does; none of them outlives its test."""
    started: list[worker_rig.Worker] = []

    def begin(source: str, **job: object) -> worker_rig.Worker:
        attempt = len(started) + 1
        worker = worker_rig.Worker(tmp_path / f"attempt-{attempt}", source, attempt=attempt, **job)
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        worker.kill()


@pytest.fixture
def run(start: Callable[..., worker_rig.Worker]) -> Callable[..., worker_rig.Ended]:
    """Runs workers to their end."""
    return lambda source, **job: start(source, **job).ended()
