"""The code of the bundled notebooks, read as one program: also the cells that linters leave out for their magics."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import rig

NOTEBOOKS = sorted((rig.ROOT / "notebooks").glob("*.ipynb"))
# What is there without being defined: IPython's, and what a worker has.
GIVEN = "from IPython import get_ipython\n\njob = get_ipython()\n"


def program(path: Path) -> str:
    """All code cells, one after the other; a magic is a comment, and what it assigns a value."""
    parts = [GIVEN]
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            source = re.sub(r"(?m)^(\s*)(\w+) = %\w+.*$", r"\1\2 = {}", cell.source)
            parts.append(re.sub(r"(?m)^(\s*)([%!].*)$", r"\1pass  # a magic", source))
    return "\n\n".join(parts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_name_is_defined_and_nothing_is_left_over(path: Path) -> None:
    # Names and imports; what a cell looks like is ruff's to say in the notebook itself.
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select=F,B,PLE", "--ignore=B905", "--output-format=concise", "-"],
        input=program(path), capture_output=True, text=True, cwd=rig.ROOT, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_name_that_is_not_defined_would_be_found(path: Path) -> None:
    broken = program(path).replace("job.track(", "no_such_name(job.track, ", 1)
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select=F", "-"],
        input=broken, capture_output=True, text=True, cwd=rig.ROOT, check=False,
    )  # fmt: skip
    assert "no_such_name" in checked.stdout
