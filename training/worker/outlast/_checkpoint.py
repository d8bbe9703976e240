"""A checkpoint's folder: the tracked objects, and ``outlast.json`` beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import _files, _state

STATE_FILE = "outlast.json"


def write(folder: Path, tracked: dict[str, Any]) -> dict[str, Any]:
    """Writes the tracked objects; returns what restore needs to know."""
    files, on_device = {}, []
    for name, value in tracked.items():
        state = _state.get(value)
        files[name] = _files.save(folder, name, state)
        devices = {t.device.type for t in _state.tensors(state)}
        if devices and "cpu" not in devices:
            on_device.append(name)
    return {"files": files, "on_device": on_device}


def size(tracked: dict[str, Any]) -> int:
    """How many bytes the tensors and arrays of the tracked objects have."""
    total = 0
    for value in tracked.values():
        state = _state.get(value)
        total += sum(t.numel() * t.element_size() for t in _state.tensors(state))
        total += sum(a.nbytes for a in _state.arrays(state))
    return total


def read(folder: Path) -> dict[str, Any]:
    """What stands in a checkpoint's outlast.json."""
    state = json.loads((folder / STATE_FILE).read_text())
    for file in state["files"].values():
        if Path(file).name != file:
            raise ValueError(f"{folder / STATE_FILE} names a file of another folder: {file}")
    return state


def restore(folder: Path, state: dict[str, Any], objects: dict[str, Any], device: str) -> None:
    """Gives objects what was saved under their names; state is what read returned."""
    for name, value in objects.items():
        if name not in state["files"]:
            has = ", ".join(sorted(state["files"])) or "nothing"
            raise KeyError(
                f"the checkpoint at step {state['step']} holds {has}, but not {name!r}. "
                "Track the objects that were tracked when it was made, or train with --fresh."
            )
        saved = _files.load(folder / state["files"][name])
        _state.put(name, value, saved, device if name in state["on_device"] else None)
