"""What the documents tell people to type exists, and what they promise of GPUs is what is chosen."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import nbformat
import pytest
import rig
from nbclient import NotebookClient

DOCUMENTS = ["README.md", "notebooks/README.md"]
NOTEBOOKS = sorted((rig.ROOT / "notebooks").glob("*.ipynb"))

MAGIC = re.compile(r"^\s*(%%?[a-z_]+)\b(.*)$")
VERB = re.compile(r"^\s*!?(?:\./)?outlast ([a-z]+)\b(.*)$")
FLAG = re.compile(r"(?<!\S)(--[a-z][a-z-]*|-[a-z])(?![\w-])")

# Verbs of ours that nobody types.
HIDDEN = {"help", "kernel", "supervise"}

# Each verb answers the first; the second is JupyterHub's.
FOREIGN = {"--help", "--max-age"}

# Magics of IPython's own that the notebooks use.
IPYTHON = {"%pip"}


def said(name: str) -> list[str]:
    """The lines of a document or notebook that people may type."""
    path = rig.ROOT / name
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        return spans(prose) + [line for c in cells if c.cell_type == "code" for line in c.source.splitlines()]
    return spans(path.read_text())


def spans(markdown: str) -> list[str]:
    """The code in a text: lines of blocks, and what stands between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)


def commands(pattern: re.Pattern[str], names: list[str]) -> dict[str, set[str]]:
    """The names that match, each with the rests of the lines it stands in."""
    found: dict[str, set[str]] = {}
    for name in names:
        for line in said(name):
            if match := pattern.match(line):
                found.setdefault(match[1], set()).add(match[2].strip())
    return found


def flags_of(rest: str) -> set[str]:
    """The flags in a line, without those of a command behind -- and without a comment."""
    return set(FLAG.findall(re.split(r"\s--\s|\s#", f" {rest} ")[0]))


def everything() -> list[str]:
    return DOCUMENTS + [str(n.relative_to(rig.ROOT)) for n in NOTEBOOKS]


def test_every_verb_and_flag_exists() -> None:
    found = commands(VERB, everything())
    assert {"install", "status", "store", "resume"} <= found.keys(), "the documents are read"
    for verb, rests in found.items():
        if verb in HIDDEN:
            continue
        help_text = rig.outlast(verb, "--help").stdout
        for rest in rests:
            missing = {f for f in flags_of(rest) if not re.search(rf"{f}\b", help_text)}
            assert not missing, f"outlast {verb} {rest}"


def test_every_flag_that_stands_alone_exists() -> None:
    verbs = ["train", "resume", "results", "logs", "gpu", "drive", "install", "store"]
    help_texts = "\n".join(rig.outlast(v, "--help").stdout for v in verbs)
    alone = {flag for name in everything() for line in said(name) if line.startswith("--") for flag in flags_of(line)}
    assert "--max-hours" in alone, "the documents are read"
    missing = {f for f in alone - FOREIGN if not re.search(rf"{f}\b", help_texts)}
    assert not missing


def test_every_magic_and_flag_exists(tmp_path: Path, kernel_spec: Path) -> None:
    found = commands(MAGIC, everything())
    names = sorted(found.keys() - IPYTHON)
    assert {"%%train", "%%shared", "%keepalive", "%attach", "%replay"} <= set(names), "the documents are read"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{n} --help") for n in names])
    client = NotebookClient(book, kernel_name="outlast", timeout=60, resources={"metadata": {"path": tmp_path}})
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(kernel_spec)]
    client.execute(env=rig.environment(JUPYTER_PATH=str(Path(sys.prefix) / "share" / "jupyter")))
    for name, cell in zip(names, book.cells, strict=True):
        help_text = "".join(o.text for o in cell.outputs)
        assert name in help_text, name
        for rest in found[name]:
            missing = {f for f in flags_of(rest) if not re.search(rf"{f}\b", help_text)}
            assert not missing, f"{name} {rest}"


def test_every_subcommand_of_drive_exists() -> None:
    known = {"", "status", "auth", "mount", "use"}
    for rest in commands(MAGIC, everything())["%drive"]:
        word = (shlex.split(rest) or [""])[0]
        assert word in known or word.startswith("["), f"%drive {rest}"


def gpu_table() -> list[list[str]]:
    """The rows of the guide's table of GPUs."""
    text = (rig.ROOT / "notebooks" / "README.md").read_text().split("## Settings by GPU")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["GPU", "MiB free", "compute capability", "precision", "batch × accumulation"]
    return rows[2:]


@pytest.mark.parametrize("row", gpu_table(), ids=lambda row: row[0])
def test_the_table_of_gpus_is_what_is_chosen(row: list[str], tmp_path: Path) -> None:
    _, free, capability, precision, batches = row
    if json.loads(rig.outlast("gpu", "--json").stdout)["source"] == "nvml":
        pytest.skip("NVML is asked first, and knows this machine's own GPU")
    smi = tmp_path / "nvidia-smi"
    answer = f"0, a card, GPU-1, {free}, {free}, [N/A], {capability}" if free else "No devices were found"
    smi.write_text(f"#!/bin/sh\necho '{answer}'\n")
    smi.chmod(0o755)
    said = rig.outlast("gpu", "--json", env=rig.environment(OUTLAST_NVIDIA_SMI=str(smi))).stdout
    choice = json.loads(said)["choice"]
    assert [precision, batches] == [choice["precision"], f"{choice['batch_size']} × {choice['grad_accum']}"]
    assert (choice["effective_batch"], choice["lora_rank"]) == (16, 16)
