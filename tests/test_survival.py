"""Kills everything that can be killed, and asks for the same bits afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import rig
from jupyter_client.manager import KernelManager


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rig.write_plan(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def reference(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The parameters of a run that nothing disturbed."""
    data = tmp_path_factory.mktemp("reference")
    rig.outlast("train", plan, "--dir", data)
    return rig.digests(data)


def start_detached(plan: Path, data: Path, *flags: str | Path) -> None:
    rig.outlast("train", plan, "--dir", data, "--checkpoint-every", "10steps", "--detach", *flags)


def in_the_middle(data: Path, model: str, step: int) -> dict:
    """Waits until model has a checkpoint and is beyond step; returns the status."""

    def there() -> dict | None:
        state = rig.status(data)
        m = rig.model_of(state, model)
        return state if m["step"] > step and m["checkpoint"] else None

    return rig.wait_for(f"step {step} of {model}", there)


def kill_run(state: dict) -> None:
    """SIGKILL for the supervisor and every worker, at once."""
    pids = [state["supervisor_pid"], *(m["worker_pid"] for m in state["models"] if m["worker_pid"])]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    rig.wait_for("the processes to end", lambda: not any(map(rig.alive, pids)))


def assert_same_as(reference: dict[str, str], data: Path) -> None:
    assert rig.digests(data) == reference
    for name in reference:
        steps = [m["step"] for m in rig.metrics(data, name)]
        assert steps == list(range(rig.STEPS)), f"{name}: a step is missing or there twice"


def test_the_run_survives_the_kernel_and_resumes_after_its_own_death(
    plan: Path, reference: dict[str, str], tmp_path: Path, kernel_spec: Path
) -> None:
    data = tmp_path / "data"
    manager = KernelManager(kernel_name="outlast")
    manager.kernel_spec_manager.kernel_dirs = [str(kernel_spec)]
    manager.start_kernel(env=rig.environment(), cwd=str(plan.parent))
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute(f"%train {plan} --dir {data} --checkpoint-every 10steps")
        rig.wait_for("the run", lambda: (data / "survivors" / "state.json").exists())
        state = in_the_middle(data, "narrow", 20)

        os.killpg(os.getpgid(manager.provisioner.pid), signal.SIGKILL)
        step = rig.model_of(state, "narrow")["step"]
        after = in_the_middle(data, "narrow", step + 10)
        assert after["supervisor_pid"] == state["supervisor_pid"], "the supervisor died with the kernel"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    kill_run(after)
    assert rig.status(data)["state"] == "paused"
    assert rig.outlast("resume", "survivors", "--dir", data).returncode == 0
    assert_same_as(reference, data)


def lose_in_the_middle(plan: Path, data: Path, store: Path) -> None:
    """Trains until a checkpoint is in the store, then takes the machine away with all that it has."""
    start_detached(plan, data, "--store", store)
    state = in_the_middle(data, "wide", 40)
    rig.wait_for(
        "a copy of a checkpoint", lambda: list(store.glob("survivors/models/wide/checkpoints/*/manifest.json"))
    )
    kill_run(state)
    shutil.rmtree(data)


def test_an_empty_machine_resumes_from_the_store_alone(plan: Path, reference: dict[str, str], tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    lose_in_the_middle(plan, data, store)

    fresh = tmp_path / "fresh"
    copy = store / "survivors" / "run.json"
    known = json.loads(copy.read_text())
    assert {"outlast", "protocol", "python", "torch"} <= set(known["versions"]), "sent before the machine was lost"
    copy.write_text(json.dumps(known | {"versions": known["versions"] | {"torch": "0.4"}}))
    done = rig.outlast("resume", "--store", store, "--dir", fresh)
    assert "narrow" in done.stdout
    was = f"wide: trained with torch 0.4 before, and goes on with torch {known['versions']['torch']} from step"
    assert was in (fresh / "survivors" / "ledger.jsonl").read_text()
    assert_same_as(reference, fresh)
    finals = sorted(p.parent.parent.name for p in store.glob("survivors/models/*/final/manifest.json"))
    assert finals == ["narrow", "wide"], "the store must hold what was trained after the resume too"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
    damage, plan: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    start_detached(plan, data)
    checkpoints = data / "survivors" / "models" / "narrow" / "checkpoints"

    def two() -> dict | None:
        good = [p for p in checkpoints.glob("*/manifest.json") if p.parent.name.isdigit()]
        return rig.status(data) if len(good) >= 2 else None

    kill_run(rig.wait_for("two checkpoints", two))
    kept = sorted(int(p.parent.name) for p in checkpoints.glob("*/manifest.json") if p.parent.name.isdigit())
    newest = checkpoints / str(kept[-1]) / "model.pt"
    os.chmod(newest, 0o644)
    damage(newest)

    done = rig.outlast("resume", "survivors", "--dir", data)
    told = f"narrow: the checkpoint at step {kept[-1]} is damaged"
    assert told in done.stdout, done.stdout
    assert told in (data / "survivors" / "ledger.jsonl").read_text()
    assert_same_as(reference, data)


def test_a_finished_run_is_not_trained_again(plan: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    rig.outlast("train", plan, "--dir", data)
    before = (data / "survivors" / "ledger.jsonl").read_bytes()
    for again in (["train", plan], ["resume", "survivors"]):
        done = rig.outlast(*again, "--dir", data)
        assert "Nothing to do" in done.stdout
    assert (data / "survivors" / "ledger.jsonl").read_bytes() == before


def test_stop_pauses_and_the_exit_status_says_so(plan: Path, reference: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    start_detached(plan, data)
    in_the_middle(data, "narrow", 15)
    done = rig.outlast("stop", "survivors", "--dir", data)
    assert "paused" in done.stdout
    state = rig.status(data)
    assert state["state"] == "paused"
    assert rig.model_of(state, "narrow")["state"] == "paused"
    assert not rig.alive(state["supervisor_pid"] or -1)
    rig.outlast("resume", "--dir", data)
    assert_same_as(reference, data)


def test_the_same_command_goes_on_on_an_empty_machine(plan: Path, reference: dict[str, str], tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    lose_in_the_middle(plan, data, store)

    done = rig.outlast("train", plan, "--dir", data, "--store", store)
    assert "going on with it" in done.stdout
    assert "skipped: narrow" in done.stdout, "what is finished is not trained again"
    assert_same_as(reference, data)
