"""Exact resume: however often and wherever a worker is killed, the result is the same to the bit, each step once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from resume_programs import PROGRAMS
from resume_rig import Supervisor, Trained

torch = pytest.importorskip("torch", reason="torch is not installed")


def undisturbed(folder: Path, source: str) -> Trained:
    """The program's result without any kill."""
    trained = Supervisor(folder / "undisturbed").train(source, [])
    assert trained.attempts == 1
    steps = [step for step, _ in trained.metrics]
    assert steps == list(range(trained.finish["step"])), "each step once, in order"
    return trained


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_killed_program_comes_to_the_same_result(name: str, tmp_path: Path) -> None:
    want = undisturbed(tmp_path, PROGRAMS[name])
    total = want.finish["step"]
    choose = random.Random(name)
    deaths = [[choose.randrange(total), choose.choice(["before", "after"])] for _ in range(3)]
    deaths.append([total - 2, "after"])  # deep in the last epoch
    got = Supervisor(tmp_path / "killed").train(PROGRAMS[name], deaths, seed=choose.random())
    assert got.result == want.result
    assert got.attempts > 1, "nobody was killed"


@pytest.mark.parametrize("name", ["batches with shuffle", "accumulated gradients over batches", "Python alone"])
def test_it_may_be_killed_at_every_single_step(name: str, tmp_path: Path) -> None:
    want = undisturbed(tmp_path, PROGRAMS[name])
    deaths = [[step, when] for step in range(want.finish["step"]) for when in ("before", "after")]
    got = Supervisor(tmp_path / "killed").train(PROGRAMS[name], deaths, checkpoint_every={"steps": 1})
    assert got.result == want.result
    assert got.attempts == len(deaths) + 1
