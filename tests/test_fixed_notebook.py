"""The notebook of the 39 models, in the setting that needs no GPU and no download."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import rig
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

NOTEBOOK = rig.ROOT / "notebooks" / "colab_training_fixed.ipynb"

# Of each sort one: a classifier, one that writes, one with batch norms, three that see and read.
SIX = ["bert-base", "flan-t5-small", "efficientnet-b0", "x-clip", "git-base", "blip2-opt"]


class Machine:
    """A machine on which somebody runs the notebook from the top to the bottom."""

    def __init__(self, folder: Path, kernels: Path) -> None:
        self.folder = folder
        self.kernels = kernels
        folder.mkdir()

    def client(self, **parameters: object) -> NotebookClient:
        """A client for the notebook, whose parameters are set as papermill sets them."""
        book = nbformat.read(NOTEBOOK, as_version=4)
        at = next(i for i, c in enumerate(book.cells) if "parameters" in c.metadata.get("tags", []))
        lines = [f"{name} = {value!r}" for name, value in parameters.items()]
        book.cells.insert(at + 1, nbformat.v4.new_code_cell("\n".join(lines)))
        client = NotebookClient(book, kernel_name="outlast", timeout=600, resources={"metadata": {"path": self.folder}})
        client.create_kernel_manager()
        client.km.kernel_spec_manager.kernel_dirs = [str(self.kernels)]
        return client

    def execute(self, client: NotebookClient) -> nbformat.NotebookNode:
        """Executes the notebook to its end, and returns it."""
        # The kernel to wrap is this environment's, also where the system has another.
        jupyter = str(Path(sys.prefix) / "share" / "jupyter")
        client.execute(env=rig.environment(JUPYTER_PATH=jupyter, HF_HUB_OFFLINE="1"))
        nbformat.validate(client.nb)
        return client.nb

    def state(self) -> dict:
        """What the supervisor last saw; nothing if there is no run yet."""
        file = self.data / "farm" / "state.json"
        return json.loads(file.read_text()) if file.exists() else {"models": [], "supervisor_pid": 0}

    def stop(self) -> None:
        """Kills the supervisor, with which its workers die."""
        if pid := self.state()["supervisor_pid"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def data(self) -> Path:
        """The data directory of this machine."""
        return self.folder / "outlast-runs"

    def results(self) -> dict[str, dict]:
        """What `outlast results farm --json` says of each model."""
        said = json.loads(rig.outlast("results", "farm", "--dir", self.data, "--json").stdout)
        return {m["name"]: m for m in said["models"]}

    def attempts(self) -> dict[str, int]:
        """The models that this machine has trained, each with the step at which it began."""
        lines = map(json.loads, (self.data / "farm" / "ledger.jsonl").read_text().splitlines())
        return {line["model"]: line.get("from_step", 0) for line in lines if line["type"] == "start"}

    def adapter(self, model: str) -> dict:
        """The trained tensors of a finished model."""
        import torch

        return torch.load(Path(self.results()[model]["final"]) / "adapter.pt")


Start = Callable[[str], Machine]


@pytest.fixture
def start(tmp_path: Path, kernel_spec: Path) -> Iterator[Start]:
    """Starts machines; whatever still works on them when a test ends is ended too."""
    machines: list[Machine] = []

    def one(name: str) -> Machine:
        machines.append(Machine(tmp_path / name, kernel_spec))
        return machines[-1]

    yield one
    for machine in machines:
        machine.stop()


def test_all_39_models_are_trained_from_top_to_bottom(tmp_path: Path, start: Start) -> None:
    machine = start("user")
    book = machine.execute(machine.client(SETTING="smoke", STORE=str(tmp_path / "drive")))

    counts = [c.execution_count for c in book.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "every cell was run"
    results = machine.results()
    assert len(results) == 39
    assert {m["state"] for m in results.values()} == {"done"}
    for name, model in results.items():
        assert 0 <= model["metrics"]["accuracy"] <= 1, name
        assert model["metrics"]["trained_parameters"] > 0, name
        steps = rig.metrics(machine.data, name, "farm")
        assert len(steps) == 36, f"{name}: three epochs of 48 examples, four at a time"
        assert len({s["loss"] for s in steps}) > 30, f"{name} is not trained: its loss does not change"
    kinds = {m["name"]: m["params"] for m in json.loads((machine.data / "farm" / "run.json").read_text())["models"]}
    assert [sum(k["reads"] == reads for k in kinds.values()) for reads in ("text", "image")] == [12, 27]

    text = printed(book)
    assert "39 of 39 models: no download." in text
    assert "39 of 39 models done" in text
    assert "Nothing to do: all of farm is done, 39 models." in text, "%resume finds nothing to do"
    assert (machine.folder / "farm-results.zip").stat().st_size > 10_000
    assert (machine.folder / "best-adapter" / "adapter_model.safetensors").exists()


def test_a_checkpoint_holds_the_adapter_and_not_the_model(start: Start) -> None:
    machine = start("user")
    machine.execute(machine.client(SETTING="smoke", STORE="none", ONLY="bert-base"))

    adapter = machine.adapter("bert-base")
    assert all("lora_" in n or "classifier" in n for n in adapter), list(adapter)
    trained = [v for n, v in adapter.items() if "lora_B" in n]
    assert trained, list(adapter)
    assert all(v.abs().sum() > 0 for v in trained), "an adapter begins as zero, and training changes it"


def test_a_second_machine_continues_from_the_store_alone(tmp_path: Path, start: Start) -> None:
    parameters = {"SETTING": "smoke", "ONLY": ",".join(SIX), "EPOCHS": 8, "CHECKPOINT_EVERY": "5steps"}
    store = str(tmp_path / "drive")
    first = start("first")
    cut_short(first, first.client(**parameters, STORE=store), lambda: in_the_middle(first))
    finished = {name: rig.metrics(first.data, name, "farm") for name in done(first)}
    assert 2 <= len(finished) < len(SIX), "the machine went away in the middle"
    shutil.rmtree(first.folder)

    second = start("second")
    book = second.execute(second.client(**parameters, STORE=store))

    assert {name: m["state"] for name, m in second.results().items()} == dict.fromkeys(SIX, "done")
    assert "was brought from the store and verified" in printed(book)
    for name, metrics in finished.items():
        assert rig.metrics(second.data, name, "farm") == metrics
    attempts = second.attempts()
    assert attempts.keys() == set(SIX) - finished.keys(), "what was finished is not trained again"
    assert max(attempts.values()) >= 5, "the one that was cut short goes on, and does not begin anew"

    undisturbed = start("undisturbed")
    undisturbed.execute(undisturbed.client(**parameters, STORE="none"))
    for name in SIX:
        same(undisturbed.adapter(name), second.adapter(name), name)


def same(want: dict, have: dict, name: str) -> None:
    """Asserts that two adapters are the same to the bit."""
    assert want.keys() == have.keys(), name
    for key, tensor in want.items():
        assert tensor.equal(have[key]), f"{name}: {key}"


def test_a_model_that_is_not_in_the_list_stops_with_a_sentence(start: Start) -> None:
    machine = start("user")
    client = machine.client(SETTING="smoke", ONLY="bert-bass", STORE="none")
    with pytest.raises(CellExecutionError, match="ONLY names models that are not in the list: bert-bass"):
        machine.execute(client)
    assert not machine.data.exists(), "nothing was trained"


def test_another_kernel_is_told_what_to_install(tmp_path: Path) -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(book, kernel_name="python3", timeout=60, resources={"metadata": {"path": tmp_path}})
    with pytest.raises(CellExecutionError, match=r"There is no outlast-….whl beside this notebook") as error:
        client.execute(env=rig.environment())
    assert "Traceback" not in str(error.value)


def done(machine: Machine) -> list[str]:
    """The models that are finished and in the store."""
    models = machine.state()["models"]
    return [m["name"] for m in models if m["state"] == "done" and m["checkpoint"]["durability"] == "handed"]


def in_the_middle(machine: Machine) -> bool:
    """Whether two models are done, and a third is in its first half with a checkpoint in the store."""
    begun = [m["checkpoint"] for m in machine.state()["models"] if m["state"] == "running" and m.get("checkpoint")]
    return len(done(machine)) >= 2 and any(c["durability"] == "handed" and c["step"] <= 48 for c in begun)


def cut_short(machine: Machine, client: NotebookClient, when: Callable[[], object]) -> None:
    """Executes the notebook until the machine goes away: supervisor and kernel are killed at once."""

    def kill() -> None:
        try:
            rig.wait_for("the middle of the run", when, seconds=240)
        finally:  # else the notebook would go on after a failure
            machine.stop()
            os.kill(client.km.provisioner.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises((DeadKernelError, CellExecutionError)):
        machine.execute(client)
    killer.join()


def printed(book: nbformat.NotebookNode) -> str:
    """All that the notebook shows as text."""
    parts = []
    for cell in book.cells:
        for out in cell.get("outputs", []):
            parts.append(out.get("text") or out.get("data", {}).get("text/plain", ""))
    return "\n".join(parts)
