"""What a checkpoint holds: each tracked object in a file under its own name.

The files can be read without Outlast: ``torch.load``, ``numpy.load``, JSON.
"""

from __future__ import annotations

import json
import pickle
import random
import sys
from pathlib import Path
from typing import Any

from . import _rng

# Files of a checkpoint that hold no tracked object.
RESERVED = ("manifest", "outlast")


def check(name: str, value: Any) -> None:
    """Refuses what cannot be saved and restored."""
    if name in RESERVED:
        raise ValueError(f"job.track({name}=...): this is the name of a file of Outlast's own.")
    if kind(value) is None:
        raise TypeError(
            f"job.track({name}=...): a {type(value).__name__} has no state that can be saved. "
            "Track objects with state_dict and load_state_dict, tensors, numpy arrays, "
            "random generators, dicts or lists."
        )


def kind(value: Any) -> str | None:
    """How a value is saved, or None if it cannot be."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return "state_dict"
    if torch and isinstance(value, torch.Tensor):
        return "tensor"
    if torch and isinstance(value, torch.Generator):
        return "torch_generator"
    if numpy and isinstance(value, numpy.ndarray):
        return "array"
    if numpy and isinstance(value, numpy.random.Generator):
        return "numpy_generator"
    if isinstance(value, random.Random):
        return "random"
    if isinstance(value, (dict, list)):
        return "container"
    return None


def get(value: Any) -> Any:
    """The state of a tracked value."""
    how = kind(value)
    if how == "state_dict":
        return value.state_dict()
    if how == "tensor":
        return value.detach()
    if how == "torch_generator":
        return _rng.pack(value.get_state())
    if how == "numpy_generator":
        return value.bit_generator.state
    if how == "random":
        return _rng.python_state(value)
    return value


def put(value: Any, state: Any) -> None:
    """Gives a tracked value the state that get returned."""
    how = kind(value)
    if how == "state_dict":
        value.load_state_dict(state)
    elif how == "tensor":
        value.detach().copy_(state)
    elif how == "torch_generator":
        value.set_state(_rng.unpack(state))
    elif how == "array":
        value[...] = state
    elif how == "numpy_generator":
        value.bit_generator.state = state
    elif how == "random":
        _rng.set_python_state(state, value)
    elif isinstance(value, dict):
        value.clear()
        value.update(state)
    else:
        value[:] = state


def save(folder: Path, name: str, value: Any) -> str:
    """Writes a value's state below folder; returns the file's name."""
    state = get(value)
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch and _holds(state, torch.Tensor):
        torch.save(state, folder / f"{name}.pt")
        return f"{name}.pt"
    if numpy and isinstance(state, numpy.ndarray):
        numpy.save(folder / f"{name}.npy", state, allow_pickle=False)
        return f"{name}.npy"
    if numpy and _arrays(state, numpy):
        numpy.savez(folder / f"{name}.npz", **state)
        return f"{name}.npz"
    try:
        text = json.dumps(state)
        if json.loads(text) == state:  # tuples and number keys would not come back the same
            (folder / f"{name}.json").write_text(text)
            return f"{name}.json"
    except (TypeError, ValueError):
        pass
    if torch:
        torch.save(state, folder / f"{name}.pt")
        return f"{name}.pt"
    (folder / f"{name}.pkl").write_bytes(pickle.dumps(state))
    return f"{name}.pkl"


def load(path: Path) -> Any:
    """Reads what save wrote. The caller has verified the file's digest."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".pkl":
        return pickle.loads(path.read_bytes())
    if path.suffix in (".npy", ".npz"):
        import numpy

        found = numpy.load(path, allow_pickle=False)
        return dict(found) if path.suffix == ".npz" else found
    return _torch_load(path)


def _torch_load(path: Path) -> Any:
    import torch

    # To the CPU first: load_state_dict moves each tensor to its parameter's
    # device, and the checkpoint may come from a machine with other GPUs.
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        # Some schedulers keep functions in their state. The file is the one
        # that this run wrote: its SHA-256 was compared with the manifest.
        return torch.load(path, map_location="cpu", weights_only=False)


def _holds(state: Any, tensor: type) -> bool:
    if isinstance(state, tensor):
        return True
    if isinstance(state, dict):
        return any(_holds(v, tensor) for v in state.values())
    if isinstance(state, (list, tuple)):
        return any(_holds(v, tensor) for v in state)
    return False


def _arrays(state: Any, numpy: Any) -> bool:
    return (
        isinstance(state, dict)
        and bool(state)
        and all(isinstance(k, str) and isinstance(v, numpy.ndarray) for k, v in state.items())
    )
