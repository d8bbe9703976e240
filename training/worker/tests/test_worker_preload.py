"""What is imported before workers are forked, and what forbids to fork them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import worker_rig
from outlast import _preload


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a, b.c as d", [("a", []), ("b.c", [])]),
        ("from a.b import c, d as e", [("a.b", ["c", "d"])]),
        ("from a import *", [("a", [])]),
        ("try:\n    import a\nexcept ImportError:\n    import b", [("a", [])]),
        ("with x:\n    import a", [("a", [])]),
        ("if x:\n    import a", []),
        ("def f():\n    import a", []),
        ("from . import a\nfrom .b import c", []),
        ("from __future__ import annotations", []),
    ],
)
def test_imports_that_a_program_makes_in_any_case(source: str, expected: list) -> None:
    assert list(_preload.imports(source)) == expected


def ask(folder: Path, code: str, *path: Path) -> str:
    """What a fresh Python in folder says to code."""
    program = f"from outlast import _preload\n{code}"
    env = worker_rig.environment()
    env["PYTHONPATH"] = ":".join([env["PYTHONPATH"], *map(str, path)])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def library(folder: Path, source: str) -> Path:
    """Installs a module called library below folder."""
    site = folder / "site-packages"
    site.mkdir()
    (site / "library.py").write_text(source)
    return site


def test_what_lies_beside_the_program_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('it was run')")
    (tmp_path / "p.py").write_text("import mine\nimport wave")
    assert (
        ask(tmp_path, "import sys; _preload.load(['p.py']); print('wave' in sys.modules, 'mine' in sys.modules)")
        == "True False"
    )


def test_a_module_beside_the_program_hides_the_library(tmp_path: Path) -> None:
    site = library(tmp_path, "print('it was run')")
    (tmp_path / "library.py").write_text("print('it was run')")
    assert ask(tmp_path, "print(_preload.is_library('library'))", site) == "False"
    (tmp_path / "library.py").unlink()
    assert ask(tmp_path, "print(_preload.is_library('library'))", site) == "True"


def test_what_cannot_be_imported_or_read_is_left_to_the_worker(tmp_path: Path) -> None:
    site = library(tmp_path, "raise SystemExit(3)")
    (tmp_path / "p.py").write_text("import library\nimport nowhere\nimport wave")
    (tmp_path / "q.py").write_text("not Python")
    code = "import sys; _preload.load(['q.py', 'none.py', 'p.py']); print('wave' in sys.modules, _preload.objection())"
    assert ask(tmp_path, code, site) == "True None"


THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), name='busy', daemon=True).start()"
CUDA = """
import sys
import types

sys.modules["torch"] = torch = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)
"""


@pytest.mark.parametrize(
    ("source", "objection"),
    [
        ("x = 1", "None"),
        (THREAD, "started threads: busy"),
        ("import _thread, time; _thread.start_new_thread(time.sleep, (9,))", "started"),
        (CUDA, "initialised CUDA"),
    ],
)
def test_what_an_import_may_not_do(tmp_path: Path, source: str, objection: str) -> None:
    site = library(tmp_path, source)
    (tmp_path / "p.py").write_text("import library")
    assert objection in ask(tmp_path, "_preload.load(['p.py']); print(_preload.objection())", site)


@pytest.mark.parametrize("name", ["selectors.py", "selectors/__init__.py"])
def test_a_name_of_a_library_beside_the_program(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    here = "import os, sys; sys.path[0] = os.getcwd(); print(_preload.objection())"
    assert "has the name of a library's module" in ask(
        tmp_path, f"import sys; del sys.path[0]; import selectors; sys.path.insert(0, ''); {here}"
    )
    assert ask(tmp_path, here) == "None"


def test_torch_itself_may_be_forked(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "p.py").write_text("import numpy\nfrom torch import nn\nimport torch.utils.data")
    assert (
        ask(
            tmp_path,
            "import sys; _preload.load(['p.py']); print(_preload.objection(), 'torch.utils.data' in sys.modules)",
        )
        == "None True"
    )
