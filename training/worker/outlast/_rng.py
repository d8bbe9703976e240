"""The state of all random generators: saved, restored, seeded.

Everything has a JSON form, so that a checkpoint holds no pickle of it.
"""

from __future__ import annotations

import base64
import random
import sys
from typing import Any

from . import _imports


def pack(tensor: Any) -> str:
    """Writes a byte tensor as text."""
    # Not by way of numpy: torch may be there without it.
    return base64.b64encode(bytes(tensor.tolist())).decode()


def unpack(text: str) -> Any:
    """Reads what pack wrote."""
    import torch

    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).clone()


def kind(value: Any) -> str | None:
    """Which library's generator a value is, or None if it is no generator."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if isinstance(value, random.Random):
        return "python"
    if torch and isinstance(value, torch.Generator):
        return "torch"
    if numpy and isinstance(value, numpy.random.Generator):
        return "numpy"
    if numpy and isinstance(value, numpy.random.RandomState):
        return "numpy_legacy"
    return None


def state_of(generator: Any) -> Any:
    """The state of one generator of any library, in its JSON form."""
    how = kind(generator)
    if how == "torch":
        return pack(generator.get_state())
    if how == "numpy":
        return _jsonable(generator.bit_generator.state)
    if how == "numpy_legacy":
        return _jsonable(generator.get_state(legacy=False))
    version, numbers, gauss = generator.getstate()
    return [version, list(numbers), gauss]


def set_state_of(generator: Any, state: Any) -> None:
    """Sets what state_of returned."""
    how = kind(generator)
    if how == "torch":
        generator.set_state(unpack(state))
    elif how == "numpy":
        generator.bit_generator.state = state
    elif how == "numpy_legacy":
        generator.set_state(_with_key(state))
    else:
        generator.setstate((state[0], tuple(state[1]), state[2]))


def _jsonable(state: Any) -> Any:
    """A numpy state with its arrays as lists; its setters take these too."""
    if isinstance(state, dict):
        return {k: _jsonable(v) for k, v in state.items()}
    return state.tolist() if hasattr(state, "tolist") else state


def _with_key(state: dict[str, Any]) -> dict[str, Any]:
    """A legacy state whose key is an array, which its setter insists on."""
    import numpy

    inner = {**state["state"], "key": numpy.array(state["state"]["key"], dtype=numpy.uint32)}
    return {**state, "state": inner}


def get_state() -> dict[str, Any]:
    """The state of every global generator that is loaded."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if numpy := sys.modules.get("numpy"):
        state["numpy"] = _jsonable(numpy.random.get_state(legacy=False))
    if torch := sys.modules.get("torch"):
        state["torch"] = pack(torch.get_rng_state())
        # Asking for a state would initialise CUDA; only one that is in use has one.
        if torch.cuda.is_initialized():
            state["cuda"] = [pack(s) for s in torch.cuda.get_rng_state_all()]
    return state


def set_state(state: dict[str, Any]) -> None:
    """Sets what get_state returned, as far as the libraries are there."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in state:
        import numpy

        numpy.random.set_state(_with_key(state["numpy"]))
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
    _imports.after("numpy", lambda numpy: numpy.random.seed(value % 2**32))
    _imports.after("torch", lambda torch: torch.manual_seed(value))
