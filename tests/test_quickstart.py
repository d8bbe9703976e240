"""The bundled notebook, run as a newcomer runs it."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import rig
from nbclient import NotebookClient


def test_the_quickstart_runs_and_its_models_are_good(tmp_path: Path, kernel_spec: Path) -> None:
    book = nbformat.read(rig.ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    client = NotebookClient(book, kernel_name="outlast", timeout=400, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(kernel_spec)]
    client.execute(env=rig.environment())
    nbformat.validate(book)

    counts = [c.execution_count for c in book.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "magics and Python share one sequence"

    data = tmp_path / "outlast-runs"
    results = json.loads(rig.outlast("results", "digits", "--dir", data, "--json").stdout)
    accuracy = {m["name"]: m["metrics"]["accuracy"] for m in results["models"]}
    assert len(accuracy) == 8
    assert {m["state"] for m in results["models"]} == {"done"}
    assert min(accuracy.values()) > 0.93, accuracy
    assert sum(a > 0.95 for a in accuracy.values()) >= 6, accuracy

    train = output(book, "%%train")
    table = next(o for o in train if o.output_type == "display_data")
    assert "8 of 8 models done" in table.data["text/plain"], "readable as text once saved"
    assert "<table" in table.data["text/html"]
    assert len([o for o in train if o.output_type == "display_data"]) == 1, "one table, updated in place"
    assert any("image/png" in o.data for o in output(book, "results = %results") if o.output_type == "display_data")
    assert any("Nothing to do" in o.text for o in output(book, "%resume") if o.output_type == "stream")


def output(book: nbformat.NotebookNode, start: str) -> list[nbformat.NotebookNode]:
    """The outputs of the cell that begins with start."""
    return next(c.outputs for c in book.cells if c.cell_type == "code" and c.source.startswith(start))
