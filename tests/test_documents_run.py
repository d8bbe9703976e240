"""The cells and commands of the documents do what is said of them, typed as they stand there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import rig
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from test_drive import drive, machine, program  # noqa: F401  # two of them are fixtures

# What a cell of the documents takes for granted: the reader's own models and data.
OWN = """%%shared
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(64, 4)
loader = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=16, shuffle=True)

def build(arch):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def step(model, optimizer, x, y=None):
    x, y = (x, y) if y is not None else x
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()

def accuracy(model):
    x, y = loader.dataset.tensors
    return (model(x).argmax(1) == y).float().mean().item()
"""

MODELS = """MODELS = [
    {"name": "a", "params": {"arch": "mlp", "lr": 0.05}},
    {"name": "b", "params": {"arch": "mlp", "lr": 0.1}},
]"""


def blocks(name: str) -> list[str]:
    """The code blocks of a document."""
    return re.findall(r"^```\w+\n(.*?)\n```", (rig.ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


def block(name: str, begins: str) -> str:
    """The one block that begins so."""
    [found] = [b for b in blocks(name) if b.startswith(begins)]
    return found


def run(cells: list[str], folder: Path, kernel_spec: Path, env: dict[str, str]) -> NotebookNode:
    """Runs cells in a notebook in folder."""
    folder.mkdir(parents=True, exist_ok=True)
    book = new_notebook(cells=[new_code_cell(c) for c in cells])
    client = NotebookClient(book, kernel_name="outlast", timeout=240, resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(kernel_spec)]
    client.execute(env=env | {"JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter")})
    return book


def shown(cell: NotebookNode) -> str:
    return "".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


def test_the_cell_of_the_readme_trains_and_its_resume_is_enough(drive: str, kernel_spec: Path, tmp_path: Path) -> None:  # noqa: F811
    cell = block("README.md", "%%train")
    [resume] = set(re.findall(r"`(%resume digits --store [^`]+)`", (rig.ROOT / "README.md").read_text()))
    first, second = tmp_path / "first", tmp_path / "second"
    book = run([OWN, MODELS, cell, cell, "%results digits"], first, kernel_spec, machine(drive, first))
    assert "digits: done, 2 of 2 models" in shown(book.cells[2])
    assert "digits: done, 2 of 2 models" in shown(book.cells[3]), "run again, it skips what is finished"
    assert {len(rig.metrics(first / "outlast-runs", m, "digits")) for m in "ab"} == {160}, "40 epochs of 4 batches"
    assert "accuracy" in shown(book.cells[4])

    book = run([resume], second, kernel_spec, machine(drive, second))
    assert "digits: done, 2 of 2 models" in shown(book.cells[0]), "on a fresh machine"
    final = rig.model_of(rig.status(second / "outlast-runs", "digits"), "a")
    assert final["checkpoint"]["durability"] == "mirrored"


def test_the_cells_and_commands_of_the_guide(drive: str, kernel_spec: Path, tmp_path: Path) -> None:  # noqa: F811
    guide = "notebooks/README.md"
    train = block(guide, "%%train mine")
    use = re.search(r"^%drive use .*$", block(guide, "%keepalive"), re.MULTILINE)[0]
    back = block(guide, "%drive auth\n%resume").replace("RUN", "mine").removeprefix("%drive auth\n")
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    own = OWN.replace("build(arch)", "build(params)")
    book = run([f"%keepalive\n{use}", own, MODELS, train], first, kernel_spec, machine(drive, first))
    assert "mine: done, 2 of 2 models" in shown(book.cells[3])
    assert "Store: drive:Outlast" in shown(book.cells[3])

    book = run([back], second, kernel_spec, machine(drive, second))
    assert "mine: done, 2 of 2 models" in shown(book.cells[0])

    env = machine(drive, third) | {"OUTLAST_HOME": str(third / "outlast-runs")}
    for line in block(guide, "outlast store pull").replace("RUN", "mine").splitlines():
        done = rig.outlast(*shlex.split(line)[1:], env=env, timeout=240)
    assert "mine: done, 2 of 2 models" in done.stdout
