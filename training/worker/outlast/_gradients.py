"""Gradients in a checkpoint: those that no optimizer has used yet.

A checkpoint may fall between two batches of one update (gradient accumulation).
Without the gradients gathered so far the update after a resume would be another
one. Those that an optimizer has used are only noted, not saved: an optimizer
skips a parameter without a gradient, and does not skip one whose gradient is
zero.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from . import _files, _state

FILE = "outlast-gradients"


class Gradients:
    """The gradients of the tracked objects."""

    def __init__(self, tracked: dict[str, Any]) -> None:
        self._tracked = tracked
        self._known = 0  # tracked objects that were looked at
        self._probes: dict[str, Any] = {}
        self._before: dict[str, int] = {}

    def watch(self) -> None:
        """Begins a step."""
        if self._known != len(self._tracked) and "torch" in sys.modules:
            self._known = len(self._tracked)
            found = {name: _first(value) for name, value in self._tracked.items()}
            self._probes = {name: p for name, p in found.items() if p is not None}
        for name, p in self._probes.items():
            self._before[name] = p._version

    def _used(self, name: str) -> bool:
        """Whether an optimizer wrote to the parameters in this step, after which their gradients have served."""
        probe = self._probes.get(name)
        return probe is not None and probe._version != self._before.get(name)

    def save(self, folder: Path) -> dict[str, Any] | None:
        """Writes the gradients below folder; returns what restore needs to know."""
        names: dict[str, list[str]] = {}
        values: dict[str, dict[str, Any]] = {}
        for name, value in self._tracked.items():
            grads = {k: p.grad for k, p in _parameters(value).items() if p.grad is not None}
            if not grads:
                continue
            names[name] = list(grads)
            if not self._used(name) and any(_any(g) for g in grads.values()):
                values[name] = {k: g.detach() for k, g in grads.items()}
        if not names:
            return None
        return {"names": names, "file": _files.save(folder, FILE, values) if values else None}

    def restore(self, folder: Path, state: dict[str, Any] | None) -> None:
        """Gives the tracked objects the gradients of a checkpoint."""
        if state is None:
            return
        import torch

        values = _files.load(folder / state["file"]) if state["file"] else {}
        for name, keys in state["names"].items():
            parameters = _parameters(self._tracked[name]) if name in self._tracked else {}
            for key in keys:
                if (p := parameters.get(key)) is None:
                    continue
                saved = values.get(name, {}).get(key)
                p.grad = torch.zeros_like(p) if saved is None else saved.to(device=p.device, dtype=p.dtype)


def _any(gradient: Any) -> bool:
    return bool((gradient.coalesce().values() if gradient.is_sparse else gradient).any())


def _parameters(value: Any) -> dict[str, Any]:
    """What can have a gradient in a tracked value, by a name."""
    if hasattr(value, "named_parameters"):
        return {k: p for k, p in value.named_parameters() if p.requires_grad}
    how = _state.kind(value)
    if how == "tensor":
        return {"": value} if value.requires_grad and value.is_leaf else {}
    if how == "dict":
        items = list(value.items())
    elif how in ("list", "tuple"):
        items = list(enumerate(value))
    else:
        return {}
    return {f"{k}/{inner}": p for k, v in items for inner, p in _parameters(v).items()}


def _first(value: Any) -> Any:
    return next(iter(_parameters(value).values()), None)
