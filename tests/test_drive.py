"""A run whose copies are in Google Drive: one that fails a fifth of the time, and lags behind."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from test_survival import assert_same_as, in_the_middle, kill_run

STORE = "drive:Outlast/tests"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake Drive."""
    program = tmp_path_factory.mktemp("fakedrive") / "fakedrive"
    package = "./checkpoint/drivetest/fakedrive"
    subprocess.run(["go", "build", "-o", program, package], cwd=rig.ROOT, check=True)
    return program


@pytest.fixture
def drive(program: Path) -> Iterator[str]:
    """Address of a fake Drive that everything started here uses."""
    flags = ["--faults", "20", "--seed", "7", "--lag", "1s", "--list-lag", "1s"]
    serving = subprocess.Popen([program, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    url = serving.stdout.readline().strip()
    yield url
    with urllib.request.urlopen(url + "/violations") as answer:
        violations = answer.read().decode()
    serving.stdin.close()
    serving.wait(10)
    assert not violations, "Drive would have refused: " + violations


def machine(drive: str, home: Path) -> dict[str, str]:
    """The environment of a machine: what it remembers of Drive is wiped with it."""
    return rig.environment(OUTLAST_DRIVE_ENDPOINT=drive, XDG_CACHE_HOME=str(home / "cache"))


def test_a_notebook_trains_to_drive_and_an_empty_machine_goes_on(drive: str, kernel_spec: Path, tmp_path: Path) -> None:
    plan = rig.write_plan(tmp_path / "plan")
    rig.outlast("train", plan, "--dir", tmp_path / "reference")
    reference = rig.digests(tmp_path / "reference")

    first = tmp_path / "first"
    data = first / "data"
    cell = f"%train {plan} --dir {data} --checkpoint-every 10steps --store {STORE} --detach"
    book = new_notebook(cells=[new_code_cell(cell), new_code_cell(f"%drive use {STORE}\n%drive --dir {data}")])
    client = NotebookClient(book, kernel_name="outlast", timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(kernel_spec)]
    client.execute(env=machine(drive, first))
    shown = "".join(o.data["text/plain"] for o in book.cells[1].outputs if o.output_type == "display_data")
    assert STORE in shown
    assert "Signed in" in shown

    in_the_middle(data, "wide", 40)
    rig.wait_for("a mirrored checkpoint", lambda: mirrored(data, "wide"), 120)
    kill_run(rig.status(data))
    shutil.rmtree(first)

    second = tmp_path / "second"
    fresh = second / "data"
    done = rig.outlast("resume", "--store", STORE, "--dir", fresh, env=machine(drive, second), timeout=400)
    assert "narrow" in done.stdout
    assert_same_as(reference, fresh)
    state = rig.status(fresh)
    assert {m["checkpoint"]["durability"] for m in state["models"]} == {"mirrored"}, state
    found = rig.outlast("store", "verify", STORE, "--json", env=machine(drive, tmp_path / "third"), timeout=200)
    assert '"damaged": 0' in found.stdout or "damaged" not in found.stdout, found.stdout


def mirrored(data: Path, model: str) -> bool:
    """Whether the newest checkpoint of a model is confirmed by the store."""
    checkpoint = rig.model_of(rig.status(data), model)["checkpoint"]
    return bool(checkpoint) and checkpoint["durability"] == "mirrored"


def test_a_stop_is_not_kept_up_by_a_drive_that_is_gone(program: Path, tmp_path: Path) -> None:
    serving = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    env = machine(serving.stdout.readline().strip(), tmp_path)
    data = tmp_path / "data"
    flags = ("--checkpoint-every", "10steps", "--store", STORE, "--detach")
    rig.outlast("train", rig.write_plan(tmp_path / "plan"), "--dir", data, *flags, env=env)
    in_the_middle(data, "narrow", 20)
    serving.kill()
    serving.wait()
    rig.wait_for("all results", lambda: all(m["state"] == "done" for m in rig.status(data)["models"]))
    assert rig.status(data)["supervisor_pid"], "it waits for Drive"

    began = time.monotonic()
    stopped = rig.outlast("stop", "survivors", "--dir", data, env=env, timeout=60)
    assert time.monotonic() - began < 45, "without a stop it would wait for ten minutes"
    assert "asked to stop, it did not wait for the store any longer" in " ".join(stopped.stdout.split())
    state = rig.status(data)
    assert (state["state"], state["supervisor_pid"]) == ("done", 0)
    assert {m["checkpoint"]["durability"] for m in state["models"]} == {"local"}, "no result is called safer"
