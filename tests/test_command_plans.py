"""Plans with a command: a Python program that we do not run ourselves has the result that it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rig

# Each model ends in a way of its own. What comes behind the loop needs what the
# loop has left behind, as much code does.
TRAIN = """
import os
import sys

import outlast

job = outlast.job()
end = job.name
state = {"n": 0, "late": False}
job.track(state=state)


class Endless:
    def __iter__(self):
        return iter([1, 2, 3])


for at, step in enumerate(job.batches(Endless(), epochs=2) if end == "unknown" else job.steps(6)):
    state["n"] += 1
    last = state["n"]
    job.log(n=last)
    if end == "early" and last == 5:
        break
    if end == "within" and last == 5:
        sys.exit(0)
assert last == (5 if end == "early" else 6)
state["late"] = True
if end == "finished":
    job.finish(n=last)
    state["n"] = 99
if job.attempt == 1 and end == "status":
    sys.exit(3)
if job.attempt == 1 and end == "killed":
    os.kill(os.getpid(), 9)
if job.attempt == 1 and end == "raises":
    raise OSError(28, "No space left on device")
if end == "abrupt" or end == "saved":
    if end == "saved":
        job.save()
    sys.stdout.flush()
    os._exit(0)
"""

PLAN = {"run": "ends", "command": ["python", "train.py"]}


def train(folder: Path, *names: str) -> dict[str, dict]:
    """Trains these models as a plan with a command; returns their states by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(TRAIN)
    path = folder / "plan.yaml"
    path.write_text(json.dumps({**PLAN, "models": [{"name": name} for name in names]}))
    rig.outlast("train", path, "--dir", folder / "runs", "--checkpoint-every", "4steps")
    return {m["name"]: m for m in rig.status(folder / "runs", "ends")["models"]}


def result(folder: Path, model: str) -> dict:
    """The state that a model's result holds, with the number of its steps."""
    final = folder / "runs" / "ends" / "models" / model / "final"
    state = json.loads((final / "state.json").read_text())
    return state | {"step": json.loads((final / "manifest.json").read_text())["step"]}


def test_the_result_is_what_the_program_ends_with(tmp_path: Path) -> None:
    ends = {
        "ends": {"n": 6, "late": True, "step": 6},
        "unknown": {"n": 6, "late": True, "step": 6},
        "early": {"n": 5, "late": True, "step": 5},
        "within": {"n": 5, "late": False, "step": 5},
        "finished": {"n": 6, "late": True, "step": 6},
        "saved": {"n": 6, "late": True, "step": 6},
    }
    states = train(tmp_path, *ends)
    for name, want in ends.items():
        assert result(tmp_path, name) == want, name
        assert states[name]["attempts"] == 1, name
        assert [m["step"] for m in rig.metrics(tmp_path / "runs", name, "ends")] == list(range(want["step"])), name
    staging = (tmp_path / "runs" / "ends" / "models").glob("*/staging/*")
    assert not list(staging)


def test_what_goes_wrong_behind_the_last_step_is_done_again_from_before_it(tmp_path: Path) -> None:
    names = ["status", "killed", "raises"]
    states = train(tmp_path, *names)
    for name in names:
        assert result(tmp_path, name) == {"n": 6, "late": True, "step": 6}, name
        assert states[name]["attempts"] == 2, name
    lines = (tmp_path / "runs" / "ends" / "ledger.jsonl").read_text().splitlines()
    begun = [e.get("from_step", 0) for e in map(json.loads, lines) if e["type"] == "start"]
    assert begun == [0, 4] * len(names)


@pytest.mark.parametrize("plan", [{}, {"command": None, "script": "train.py"}], ids=["command", "script"])
def test_a_state_that_is_lost_is_no_result(tmp_path: Path, plan: dict) -> None:
    plan = {k: v for k, v in {**PLAN, **plan}.items() if v}
    (tmp_path / "train.py").write_text(TRAIN)
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps({**plan, "models": [{"name": "abrupt"}]}))
    done = rig.outlast("train", path, "--dir", tmp_path / "runs", "--checkpoint-every", "4steps", check=False)
    assert done.returncode == 1
    model = rig.model_of(rig.status(tmp_path / "runs", "ends"), "abrupt")
    assert model["cause"] == "crash"
    assert "job.finish" in model["error"]
    assert not (tmp_path / "runs" / "ends" / "models" / "abrupt" / "final").exists()
