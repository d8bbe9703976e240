"""The files of a checkpoint: each tracked object in one, under its own name.

They can be read without Outlast: ``torch.load``, ``numpy.load``, JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

from . import _state

# The folder, within that of a checkpoint that is being written, with the files
# of one that nobody needs any more.
OLD = ".old"


def save(folder: Path, name: str, state: Any) -> str:
    """Writes a state below folder; returns the file's name."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch and _state.tensors(state):
        return _torch_save(folder, name, state)
    if numpy and isinstance(state, numpy.ndarray):
        numpy.save(folder / f"{name}.npy", state, allow_pickle=False)
        return f"{name}.npy"
    if numpy and _arrays(state, numpy):
        numpy.savez(folder / f"{name}.npz", **state)
        return f"{name}.npz"
    if _is_json(state):
        (folder / f"{name}.json").write_text(json.dumps(state))
        return f"{name}.json"
    if torch:
        return _torch_save(folder, name, state)
    try:
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(state))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise _unsavable(name, error) from error
    return f"{name}.pkl"


def load(path: Path) -> Any:
    """Reads what save wrote."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".pkl":
        trust(path)
        return pickle.loads(path.read_bytes())
    if path.suffix in (".npy", ".npz"):
        import numpy

        found = numpy.load(path, allow_pickle=False)
        return dict(found) if path.suffix == ".npz" else found
    return _torch_load(path)


def trust(path: Path) -> None:
    """Refuses a file that is not the one this run's manifest lists.

    To unpickle a file is to run what it says. Only what our own run wrote may
    do that, and the manifest's SHA-256 is what tells it from anything else.
    """
    try:
        listed = json.loads((path.parent / "manifest.json").read_text())["files"]
        want = {f["path"]: f["sha256"] for f in listed}.get(path.name)
    except FileNotFoundError:
        want = None
    if want is None or want != _sha256(path):
        raise ValueError(
            f"{path} holds more than tensors and plain values, and does not match its checkpoint's manifest: "
            "it is not unpickled. Remove this checkpoint; training goes on from the one before it."
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _torch_save(folder: Path, name: str, state: Any) -> str:
    import torch

    _on_cpu.register(torch)
    _on_cpu.active = True
    try:
        with _Patient(folder / f"{name}.pt") as file:
            torch.save(state, file)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise _unsavable(name, error) from error
    finally:
        _on_cpu.active = False
    return f"{name}.pt"


class _Patient:
    """A file that takes everything, and says only when it is closed that it had no room.

    An error in the middle of torch.save leaves a writer behind that ends the
    whole process when it is cleaned up.
    """

    def __init__(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # there is none
            (path.parent / OLD / path.name).rename(path)
        # Not cut: it is written over, which is faster than to get its space anew.
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "wb", 0)
        self._error: OSError | None = None

    def __enter__(self) -> _Patient:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        with self._file:
            self._file.truncate()
        if self._error and kind is None:
            raise self._error

    def write(self, data: Any) -> int:
        """Writes data, unless writing has failed before."""
        view = memoryview(data).cast("B")
        try:
            done = 0
            while done < len(view) and not self._error:
                done += self._file.write(view[done:])
        except OSError as error:
            self._error = error
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""


class _OnCPU(threading.local):
    """Has torch.save call every tensor one of the CPU.

    It copies tensors of a GPU to the CPU one after the other as it writes them,
    but notes where they came from, and the file could then not be read on a
    machine without a GPU. To move the whole state first would take all its
    memory a second time.
    """

    active = False

    def register(self, torch: Any) -> None:
        """Puts us before torch's own taggers, once."""
        mark = "_outlast_registered"
        if not hasattr(torch.serialization, mark):
            # Torch's own have priorities from 10 on.
            torch.serialization.register_package(5, self.tag, lambda *_: None)
            setattr(torch.serialization, mark, True)

    def tag(self, storage: Any) -> str | None:
        """Where a storage is said to lie."""
        moved = self.active and getattr(storage, "device", None) is not None and storage.device.type != "meta"
        return "cpu" if moved else None


_on_cpu = _OnCPU()


def _torch_load(path: Path) -> Any:
    import torch

    # To the CPU first: load_state_dict moves each tensor to its parameter's
    # device, and the checkpoint may come from a machine with other GPUs.
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Some schedulers keep functions in their state, some programs objects of their own.
        trust(path)
        return torch.load(path, map_location="cpu", weights_only=False)


def _unsavable(name: str, error: Exception) -> TypeError:
    return TypeError(f"job.track({name}=...): its state cannot be written to a file: {error}. {_state.CURE}")


def _is_json(state: Any) -> bool:
    """Whether JSON brings a state back as it is: tuples, number keys and subclasses would change."""
    if type(state) is dict:
        return all(type(k) is str and _is_json(v) for k, v in state.items())
    if type(state) is list:
        return all(_is_json(v) for v in state)
    return state is None or type(state) in (str, int, float, bool)


def _arrays(state: Any, numpy: Any) -> bool:
    return (
        type(state) is dict
        and bool(state)
        and "file" not in state  # numpy.savez has an argument of this name
        and all(
            isinstance(k, str) and "/" not in k and isinstance(v, numpy.ndarray) and not v.dtype.hasobject
            for k, v in state.items()
        )
    )
