"""What can be tracked: how its state is taken, and given back in place.

In place matters: an optimizer holds the very tensors of a model, and a program
the very lists it made. What is restored is therefore written into the objects
that are there, as far as there are any.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

from . import _rng

# Names of files of a checkpoint that hold no tracked object.
RESERVED = ("manifest", "outlast")

CURE = (
    "Track objects with state_dict and load_state_dict, tensors, numpy arrays, random generators, "
    "dicts or lists; a number or a text goes into a dict, which is changed in place."
)


def check(name: str, value: Any) -> None:
    """Refuses what cannot be saved and restored."""
    if name in RESERVED:
        raise ValueError(f"job.track({name}=...): this is the name of a file of Outlast's own.")
    how = kind(value)
    if how is None or how == "tuple":
        what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"job.track({name}=...): {what} has no state that can be saved and restored. {CURE}")
    if how == "array" and value.dtype.hasobject:
        raise TypeError(f"job.track({name}=...): an array of Python objects cannot be saved. Use a list.")


def kind(value: Any) -> str | None:
    """How a value is saved, or None if it has no state of its own."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if isinstance(value, type):
        return None
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return "state_dict"
    if torch and isinstance(value, torch.Tensor):
        return "tensor"
    if numpy and isinstance(value, numpy.ndarray):
        return "array"
    if _rng.kind(value):
        return "generator"
    if isinstance(value, dict):
        return "dict"
    if isinstance(value, list):
        return "list"
    return "tuple" if isinstance(value, tuple) else None


def get(value: Any) -> Any:
    """The state of a tracked value. Its tensors and arrays are not copied."""
    how = kind(value)
    if how == "state_dict":
        return _without_weak(value.state_dict())
    if how == "tensor":
        tensor = value.detach() if value.requires_grad else value
        # A part of a larger tensor would take all of it along.
        return tensor.clone() if _is_part(tensor) else tensor
    if how == "generator":
        return _rng.state_of(value)
    if how == "dict":
        parts = {k: get(v) for k, v in value.items()}
        return value if all(parts[k] is v for k, v in value.items()) else parts
    if how in ("list", "tuple"):
        parts = [get(v) for v in value]
        same = all(a is b for a, b in zip(parts, value, strict=True))
        return value if same else parts if how == "list" else tuple(parts)
    return value


def _without_weak(state: Any) -> Any:
    # Some releases of torch hand out a scheduler's weak references, which no file
    # can hold; the object that gets the state has its own.
    if type(state) is dict and any(isinstance(v, weakref.ref) for v in state.values()):
        return {k: v for k, v in state.items() if not isinstance(v, weakref.ref)}
    return state


def _is_part(tensor: Any) -> bool:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        return False
    storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()
    size = storage.nbytes() if hasattr(storage, "nbytes") else 0
    return size > 2 * tensor.numel() * tensor.element_size()


def put(name: str, value: Any, state: Any, device: str | None = None) -> None:
    """Gives a tracked value the state that get returned.

    Tensors for which there is none in place yet go to device.
    """
    _into(name, value, state, device)


def _into(path: str, old: Any, new: Any, device: str | None) -> Any:
    """Writes new into old if that is possible; returns what is to stand there."""
    how = kind(old)
    if how == "state_dict":
        if not _was_off(old, new):
            old.load_state_dict(new)
        return old
    if how == "generator":
        _rng.set_state_of(old, new)
        return old
    if how in ("tensor", "array") and kind(new) == how:
        return _copy(path, how, old, new)
    if how == kind(new) == "dict":
        parts = {k: _into(f"{path}[{k!r}]", old.get(k), v, device) for k, v in new.items()}
        old.clear()
        old.update(parts)
        return old
    if how in ("list", "tuple") and how == kind(new):
        there = [*old, *[None] * len(new)]
        parts = [_into(f"{path}[{i}]", there[i], v, device) for i, v in enumerate(new)]
        if how == "tuple":
            return tuple(parts) if type(old) is tuple else new
        old[:] = parts
        return old
    return _to(new, device) if device else new


def _was_off(old: Any, new: Any) -> bool:
    # A gradient scaler that is off has the state {}, and one that is on, as on a
    # GPU without bf16, refuses that: it begins as it is.
    return isinstance(new, dict) and not new and hasattr(old, "is_enabled") and old.is_enabled()


def _copy(path: str, how: str, old: Any, new: Any) -> Any:
    if tuple(old.shape) != tuple(new.shape):
        if "[" in path:  # within a container a tensor may grow
            return new.to(old.device) if how == "tensor" else new
        raise ValueError(
            f"job.track({path}=...): it has the shape {tuple(old.shape)}, but {tuple(new.shape)} in the checkpoint. "
            "Make it as it was when the checkpoint was made, or train with --fresh."
        )
    if how == "array":
        if "[" in path and old.dtype != new.dtype:
            return new
        old[...] = new
    elif old.layout != new.layout or ("[" in path and old.dtype != new.dtype):
        return new.to(old.device)
    else:
        old.detach().copy_(new)
    return old


def _to(value: Any, device: str) -> Any:
    """A loaded value with its tensors on device."""
    how = kind(value)
    if how == "tensor":
        return value.to(device)
    if how == "dict":
        return {k: _to(v, device) for k, v in value.items()}
    if how == "list":
        return [_to(v, device) for v in value]
    if type(value) is tuple:
        return tuple(_to(v, device) for v in value)
    return value


def tensors(value: Any) -> list[Any]:
    """The tensors in a state, however deep."""
    return _all("tensor", value)


def arrays(value: Any) -> list[Any]:
    """The arrays in a state, however deep."""
    return _all("array", value)


def _all(wanted: str, value: Any) -> list[Any]:
    how = kind(value)
    if how == wanted:
        return [value]
    if how == "dict":
        return [t for v in value.values() for t in _all(wanted, v)]
    return [t for v in value for t in _all(wanted, v)] if how in ("list", "tuple") else []
