"""The wheel: built as it ships, installed into a fresh environment, used as a newcomer does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import rig

RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(book, kernel_name="outlast", timeout=400).execute()
nbformat.write(book, sys.argv[2])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(rig.ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that has the wheel and nothing else of ours."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    # With the system's packages, for torch: as on a machine that has it already.
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(folder)], check=True)
    python = folder / "bin" / "python"
    packages = [str(wheel), "nbclient", "ipykernel"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
    return python


def environment(python: Path) -> dict[str, str]:
    """That of a user whose shell has the environment active, and no other."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OUTLAST_", "JUPYTER_", "VIRTUAL_ENV", "PYTHON"))}
    return env | {"VIRTUAL_ENV": str(python.parents[1]), "PATH": f"{python.parent}:/usr/bin:/bin"}


def test_the_wheel_holds_what_a_newcomer_needs(wheel: Path) -> None:
    parts = zipfile.ZipFile(wheel)
    names = parts.namelist()
    for part in (
        "data/share/jupyter/kernels/outlast/kernel.json",
        "logo-svg.svg",
        "scripts/outlast",
        "licenses/LICENSE",
    ):
        assert any(name.endswith(part) for name in names), part
    assert "outlast/__init__.py" in names
    others = parts.read("outlast/THIRD_PARTY_LICENSES.txt").decode()
    for module in ("go-zeromq/zmq4", "NVIDIA/go-nvml", "klauspost/compress", "gonum.org/v1/plot"):
        assert f"{module} v" in others


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's versions are Linux's")
def test_the_program_runs_with_an_old_c_library(python: Path) -> None:
    text = subprocess.run(
        ["objdump", "-T", python.parent / "outlast"], capture_output=True, text=True, check=True
    ).stdout
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", text)}
    assert max(versions) <= (2, 17), versions
    needed = subprocess.run(
        ["objdump", "-p", python.parent / "outlast"], capture_output=True, text=True, check=True
    ).stdout
    assert "libnvml-names" not in needed, "what stood in for NVIDIA's library must not be asked for"


def test_pip_alone_makes_it_a_command_a_module_and_a_kernel(python: Path) -> None:
    env = environment(python)
    for command in (["outlast"], [str(python), "-m", "outlast"]):
        done = subprocess.run([*command, "version"], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("outlast ")
    subprocess.run([python, "-c", "import outlast; outlast.job().steps"], env=env, check=True)
    specs = python.parents[1] / "share" / "jupyter" / "kernels"
    spec = json.loads((specs / "outlast" / "kernel.json").read_text())
    assert spec["argv"][:3] == ["python", "-m", "outlast"]


def test_the_quickstart_runs_in_a_fresh_environment(python: Path, tmp_path: Path) -> None:
    env = environment(python)
    subprocess.run(["outlast", "notebook", "quickstart", "-o", "q.ipynb"], env=env, cwd=tmp_path, check=True)
    done = subprocess.run(
        [python, "-c", RUN, "q.ipynb", "done.ipynb"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = subprocess.run(
        ["outlast", "results", "digits", "--json"], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert {m["state"] for m in json.loads(results.stdout)["models"]} == {"done"}
    nbformat.read(tmp_path / "done.ipynb", as_version=4)
