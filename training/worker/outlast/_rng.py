"""The state of all random generators: saved, restored, seeded.

Everything has a JSON form, so that a checkpoint holds no pickle of it.
"""

from __future__ import annotations

import base64
import importlib.abc
import importlib.machinery
import random
import sys
from typing import Any


def _torch() -> Any:
    return sys.modules.get("torch")


def _numpy() -> Any:
    return sys.modules.get("numpy")


def pack(tensor: Any) -> str:
    """Writes a byte tensor as text."""
    # Not by way of numpy: torch may be there without it.
    return base64.b64encode(bytes(tensor.tolist())).decode()


def unpack(text: str) -> Any:
    """Reads what pack wrote."""
    import torch

    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).clone()


def python_state(generator: Any = random) -> list:
    """The state of Python's generator, or of a random.Random."""
    version, numbers, gauss = generator.getstate()
    return [version, list(numbers), gauss]


def set_python_state(state: list, generator: Any = random) -> None:
    """Sets what python_state returned."""
    generator.setstate((state[0], tuple(state[1]), state[2]))


def get_state() -> dict[str, Any]:
    """The state of every global generator that is loaded."""
    state: dict[str, Any] = {"python": python_state()}
    if numpy := _numpy():
        kind, keys, pos, has_gauss, gauss = numpy.random.get_state(legacy=True)
        state["numpy"] = [kind, keys.tolist(), int(pos), int(has_gauss), float(gauss)]
    if torch := _torch():
        state["torch"] = pack(torch.get_rng_state())
        # Asking for a state would initialise CUDA; only one that is in use has one.
        if torch.cuda.is_initialized():
            state["cuda"] = [pack(s) for s in torch.cuda.get_rng_state_all()]
    return state


def set_state(state: dict[str, Any]) -> None:
    """Sets what get_state returned, as far as the libraries are there."""
    set_python_state(state["python"])
    if "numpy" in state:
        import numpy

        kind, keys, pos, has_gauss, gauss = state["numpy"]
        keys = numpy.array(keys, dtype=numpy.uint32)
        numpy.random.set_state((kind, keys, pos, has_gauss, gauss))
    if "torch" in state:
        import torch

        torch.set_rng_state(unpack(state["torch"]))
        if "cuda" in state and torch.cuda.is_available():
            states = [unpack(s) for s in state["cuda"]]
            for device, one in enumerate(states[: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(one, device)


def seed(value: int) -> None:
    """Seeds Python's generator now, and numpy's and torch's once they are loaded.

    A program that seeds nothing is then the same program in every attempt.
    """
    random.seed(value)
    seeders = {
        "numpy": lambda m: m.random.seed(value % 2**32),
        "torch": lambda m: m.manual_seed(value),
    }
    waiting = {}
    for name, seeder in seeders.items():
        if name in sys.modules:
            seeder(sys.modules[name])
        else:
            waiting[name] = seeder
    if waiting:
        sys.meta_path.insert(0, _AfterImport(waiting))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with a module once it has been imported."""

    def __init__(self, waiting: dict[str, Any]) -> None:
        self._waiting = waiting

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        seeder = self._waiting.pop(name, None)
        if seeder is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            seeder(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
