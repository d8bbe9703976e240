"""The same over the real descriptor, as the supervisor starts it, killed from outside at a random moment."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worker_rig
from resume_programs import PROGRAMS
from resume_rig import write_manifest

pytest.importorskip("torch", reason="torch is not installed")

Start = Callable[..., worker_rig.Worker]

# Slow enough that a kill finds it at work.
PROGRAM = "import random\nimport time\n" + PROGRAMS["random numbers of three libraries in the loop"].replace(
    "epochs=3):", "epochs=6):\n    time.sleep(0.02)"
).replace("digest(model, optimizer)", "repr([p.tolist() for p in model.parameters()])")


def follow(worker: worker_rig.Worker, folder: Path, state: dict[str, Any], kill_at: int | None) -> bool:
    """Does what the supervisor does with a worker's events; kills it as soon as it has logged so many steps."""
    logged = 0
    for event in worker.live():
        kind = event["event"]
        if kind == "restored":
            state["metrics"] = [m for m in state["metrics"] if m[0] < event["step"]]
        elif kind == "metrics":
            state["metrics"].append((event["step"], event["values"]))
            logged += 1
        elif kind == "checkpoint":
            target = folder / f"{len(state['checkpoints'])}-{event['step']}"
            shutil.copytree(event["path"], target)
            write_manifest(target)
            state["checkpoints"].append({"step": event["step"], "path": str(target)})
        elif kind == "failed":
            raise AssertionError(event["traceback"])
        elif kind == "finish":
            state["finish"] = event["metrics"]
        if logged == kill_at:
            worker.kill()
            kill_at = None
    return "finish" in state


def train(start: Start, folder: Path, kills: list[int]) -> tuple[list[Any], Any, int]:
    """Trains with so many kills, each after some steps of an attempt."""
    folder.mkdir()
    state: dict[str, Any] = {"metrics": [], "checkpoints": []}
    attempts = 0
    while True:
        newest = state["checkpoints"][-1] if state["checkpoints"] else None
        worker = start(PROGRAM, checkpoint=newest, checkpoint_every={"steps": 2}, grad_accum=1)
        attempts += 1
        if follow(worker, folder, state, kills.pop() if kills else None):
            return state["metrics"], state["finish"], attempts


def test_a_worker_killed_from_outside_comes_to_the_same_result(start: Start, tmp_path: Path) -> None:
    want = train(start, tmp_path / "undisturbed", [])
    choose = random.Random(20)
    got = train(start, tmp_path / "killed", [choose.randrange(1, 8) for _ in range(3)])
    assert got[:2] == want[:2]
    assert [step for step, _ in got[0]] == list(range(36))
    assert got[2] > 1, "nobody was killed"
