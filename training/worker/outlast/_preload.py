"""Imports what a program will import, in a process that is to be forked; and says whether it may be.

Only libraries are imported: what lies beside a program is part of it, and is
run by its workers alone.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib.machinery
import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

# What cuDeviceGetCount says in a process that has not initialised CUDA.
NOT_INITIALIZED = 3

# Where installers put packages; a folder of another name is somebody's work.
LIBRARIES = {"site-packages", "dist-packages"}

# Where torch.manual_seed passes through.
SEEDING = {"torch.random", "torch.cuda", "torch.cuda.random"}


def load(files: Iterable[str]) -> None:
    """Imports what the files import at their top level, as far as that can be done."""
    for file in files:
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            for module, names in imports(Path(file).read_text()):
                if is_library(module.partition(".")[0]):
                    _import(module, names)


def imports(source: str) -> Iterator[tuple[str, list[str]]]:
    """The modules that a program imports whenever it is run, and what of them."""
    for node in _always(ast.parse(source).body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, []
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level and node.module != "__future__":
            yield node.module, [alias.name for alias in node.names if alias.name != "*"]


def _always(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, (ast.Try, ast.With)):
            yield from _always(node.body)
        else:
            yield node


def is_library(name: str) -> bool:
    """Whether a module would be found among the installed ones, and not beside the program."""
    if name in sys.modules:  # it is here
        return True
    spec = importlib.machinery.PathFinder.find_spec(name)
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    standard = tuple(sysconfig.get_path(key) + os.sep for key in ("stdlib", "platstdlib"))
    return bool(places) and all(LIBRARIES & set(Path(p).parts) or p.startswith(standard) for p in places)


def _import(module: str, names: list[str]) -> None:
    # Whatever goes wrong here goes wrong in the worker again, where it is reported.
    with contextlib.suppress(BaseException):
        found = __import__(module, fromlist=names or [""])
        for name in names:  # some packages load a part when it is first asked for
            getattr(found, name, None)


def read_sources() -> None:
    """Reads the sources that torch wants to see whenever a program seeds its generators.

    It keeps the stack of that for an error of CUDA that may come later.
    """
    for name, module in list(sys.modules.items()):
        if name in SEEDING or name.startswith(f"{__package__}."):
            linecache.getlines(getattr(module, "__file__", None) or "")


def objection() -> str | None:
    """Why workers must not be forked from this process; None if they may be."""
    if threading.active_count() > 1:
        others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
        return "an import has started threads: " + ", ".join(others)
    if _cuda():
        return "an import has initialised CUDA"
    maps = Path("/proc/self/maps").read_text()
    unknown = len(os.listdir("/proc/self/task")) - 1 - _forkable(maps)
    if unknown > 0:
        return f"an import has started {unknown} threads outside Python"
    if hidden := _hidden():
        return f"{hidden} has the name of a library's module"
    return None


def _cuda() -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        return True
    try:  # others may have done so behind its back; this only looks at what is loaded
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        return driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != NOT_INITIALIZED
    except (OSError, AttributeError):
        return False


def _forkable(maps: str) -> int:
    """How many threads OpenBLAS may have: it ends them before a fork and starts them after it."""
    libraries = {Path(line.split()[-1]).name for line in maps.splitlines() if "/" in line}
    return sum("openblas" in name for name in libraries) * (len(os.sched_getaffinity(0)) - 1)


def _hidden() -> str | None:
    """What beside the program a fresh Python would have found before a module that is here."""
    for folder in dict.fromkeys(sys.path):
        parts = set(Path(folder).parts)
        if LIBRARIES & parts or not os.path.isdir(folder) or folder.startswith(sysconfig.get_path("stdlib")):
            continue
        for entry in os.listdir(folder):
            name, _, ending = entry.partition(".")
            package = not ending and os.path.exists(os.path.join(folder, entry, "__init__.py"))
            if not package and ending != "py":
                continue
            module = sys.modules.get(name)
            path = getattr(module, "__file__", None)
            if module is not None and name != "__main__" and not (path or "").startswith(os.path.join(folder, name)):
                return os.path.join(folder, entry)
    return None
