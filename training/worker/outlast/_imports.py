"""Things to do once a library has been imported, without importing it ourselves."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

Action = Callable[[Any], None]

# Libraries whose version decides the last bits of what is computed.
DECISIVE = ("accelerate", "jax", "keras", "lightning", "numpy", "peft", "tensorflow", "torch", "transformers")


def versions() -> dict[str, str]:
    """The versions of the decisive libraries that have been imported; asking for those of others would take time."""
    found = ((name, getattr(sys.modules.get(name), "__version__", None)) for name in DECISIVE)
    return {name: str(version) for name, version in found if version}


def after(name: str, action: Action) -> None:
    """Calls action with the module of this name: now, or right after its import."""
    if module := sys.modules.get(name):
        action(module)
        return
    finder = next((f for f in sys.meta_path if isinstance(f, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.waiting.setdefault(name, []).append(action)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the others find a module, and comes in when it has been loaded."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Action]] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        actions = self.waiting.pop(name, None)
        if actions is None:
            return None
        spec = importlib.util.find_spec(name)  # asks us too: now we know nothing of it
        if spec is None or not hasattr(spec.loader, "exec_module"):
            self.waiting[name] = actions
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            for action in actions:
                action(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
