"""Several models at once: the same bits, whatever is killed, and nobody trained twice."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import rig

WIDTHS = {"narrow": 8, "wide": 32, "wider": 48}


def write_plan(folder: Path, run: str, names: list[str], source: str = rig.TRAIN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(source)
    models = [{"name": name, "params": {"width": WIDTHS.get(name, 8)}} for name in names]
    plan = folder / "plan.yaml"
    plan.write_text(json.dumps({"run": run, "script": "train.py", "models": models}))
    return plan


def ledger(data: Path, run: str, kind: str) -> list[dict]:
    lines = (data / run / "ledger.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["type"] == kind]


def most_at_once(data: Path, run: str) -> int:
    at, most = set(), 0
    for line in (data / run / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["type"] == "start":
            at.add(entry["model"])
        elif entry["type"] == "end":
            at.discard(entry["model"])
        most = max(most, len(at))
    return most


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan"), "survivors", list(WIDTHS))


def workers(data: Path) -> dict[str, int]:
    return {m["name"]: m["worker_pid"] for m in rig.status(data)["models"] if m["worker_pid"]}


def test_models_trained_at_once_end_as_one_after_the_other_whatever_is_killed(plan: Path, tmp_path: Path) -> None:
    alone, packed = tmp_path / "alone", tmp_path / "packed"
    rig.outlast("train", plan, "--dir", alone)
    rig.outlast("train", plan, "--dir", packed, "--parallel", "3", "--checkpoint-every", "10steps", "--detach")

    def at_work(steps: int) -> dict[str, int] | None:
        state = rig.status(packed)
        ready = all(m["step"] > steps and m["checkpoint"] for m in state["models"])
        return workers(packed) if ready and len(workers(packed)) == 3 else None

    # One worker, by itself: the two beside it go on as they are.
    pids = rig.wait_for("three at work", lambda: at_work(15))
    os.kill(pids["wide"], signal.SIGKILL)
    again = rig.wait_for("the killed one", lambda: at_work(15) if workers(packed).get("wide") != pids["wide"] else None)
    assert {n: p for n, p in again.items() if n != "wide"} == {n: p for n, p in pids.items() if n != "wide"}

    # The supervisor, and all of them with it.
    supervisor = rig.status(packed)["supervisor_pid"]
    os.kill(supervisor, signal.SIGKILL)
    rig.wait_for("the processes to end", lambda: not any(map(rig.alive, [supervisor, *again.values()])))
    assert rig.outlast("resume", "survivors", "--dir", packed).returncode == 0

    assert rig.digests(packed) == rig.digests(alone)
    for name in WIDTHS:
        assert [m["step"] for m in rig.metrics(packed, name)] == list(range(rig.STEPS)), name
    assert most_at_once(packed, "survivors") == 3
    assert most_at_once(alone, "survivors") == 1


def test_a_plan_of_twelve_two_at_once(tmp_path: Path) -> None:
    source = rig.TRAIN.replace("epochs=12", "epochs=2").replace("12 * len(loader)", "2 * len(loader)")
    names = [f"m{n:02}" for n in range(12)]
    plan = write_plan(tmp_path, "twelve", names, source)
    done = rig.outlast("train", plan, "--dir", tmp_path / "data", "--parallel", "2")
    assert "12 of 12 models done" in done.stdout
    for name in names:
        lines = (tmp_path / "data" / "twelve" / "models" / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(32)), name
    assert most_at_once(tmp_path / "data", "twelve") == 2
    assert [e["attempt"] for e in ledger(tmp_path / "data", "twelve", "start")] == [1] * 12


def test_a_model_computes_with_its_share_of_the_cores_in_every_attempt(tmp_path: Path) -> None:
    source = """
import os
import signal

import torch

import outlast

job = outlast.job()
print("threads", torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS"), flush=True)
job.track(model=torch.nn.Linear(1, 1))
for step in job.steps(4):
    if step == 2 and job.attempt == 1:
        job.save()
        os.kill(os.getpid(), signal.SIGKILL)
job.finish()
"""
    plan = write_plan(tmp_path, "shares", ["a", "b"], source)
    environment = rig.environment()
    environment.pop("OMP_NUM_THREADS", None)
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    rig.outlast("train", plan, "--dir", tmp_path / "data", "--parallel", "2", env=environment)
    for name in ("a", "b"):
        log = (tmp_path / "data" / "shares" / "models" / name / "log.txt").read_text()
        assert [line for line in log.splitlines() if line.startswith("threads")] == [f"threads {share} {share}"] * 2


@pytest.mark.parametrize("text", ["0", "many", "-2", "1000"])
def test_a_number_that_makes_no_sense_is_refused(text: str, plan: Path, tmp_path: Path) -> None:
    done = rig.outlast("train", plan, "--dir", tmp_path, f"--parallel={text}", check=False)
    assert done.returncode == 2
    assert "1 to 64, or auto" in done.stderr
    assert not list(tmp_path.iterdir())
