"""The position inside an epoch, so that a resume draws the very same batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _rng

# Where a data loader keeps what draws its order, and what changes its samples.
PARTS = ("batch_sampler", "sampler", "dataset", "transform", "transforms", "collate_fn", "data_source")

# How deep to look for generators in it: Subset of a dataset with a transform, and so on.
DEPTH = 6


class Position:
    """Where in the data training is: the epoch, and the batches taken of it.

    The order of an epoch is decided when its iterator is made, by the random
    state of that moment. That state is therefore part of a checkpoint: to go on
    in mid-epoch it is set again, the iterator made anew, the batches that were
    trained on are drawn and dropped, and only then the generators, the loader's
    own among them, get the state they had when the checkpoint was made.

    Batches are drawn, not skipped: the random state inside a loader's processes
    and inside a dataset follows from the samples it has given. One thing cannot be
    repeated so: a sampler that draws little by little from a generator from which
    the loop draws too.
    """

    def __init__(self, loader: Any, batch_size: int, others: list[Any]) -> None:
        self.loader = loader
        self.epoch = 0
        self.taken = 0
        self._default = batch_size
        self._others = others  # generators that the program tracks itself
        self._start: dict[str, Any] = {}
        self._own: list[Any] = []

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "epoch": self.epoch,
            "taken": self.taken,
            "batch_size": self._batch_size(),
            "length": length(self.loader),
            "start": self._start,
            "own": self._states(),
        }

    def restore(self, state: dict[str, Any]) -> str | None:
        """Sets what state returned; returns what the user should know, if anything.

        The batch may have another size now, because the first one did not fit
        into memory: then as many of the new ones are dropped as were trained on.
        """
        self.epoch, self.taken, self._start = state["epoch"], state["taken"], state["start"]
        self._own = state["own"]
        old, new = state["batch_size"], self._batch_size()
        if old == new:
            return None
        self._own = []  # the generators of another number of draws
        samples, count = self.taken * old, length(self.loader)
        if state["length"] and self.taken >= state["length"]:  # the epoch was over
            self.taken = count or -(-samples // new)
        else:
            self.taken = samples // new
        note = f"the batch has {new} samples now, not {old}: the result is statistically equal, not bit for bit"
        again = samples - self.taken * new
        return f"{note}; {again} samples of this epoch come a second time" if again > 0 else note

    def left(self, epochs: int) -> int | None:
        """The batches still to come, or None if nobody knows."""
        if self.epoch >= epochs:
            return 0
        count = length(self.loader)
        return max(0, count * (epochs - self.epoch) - self.taken) if count else None

    def begin(self) -> Iterator[Any]:
        """Makes the iterator of the present epoch, at the present position."""
        own, self._own = self._own, []
        if not self.taken:
            self._set(own)
            self._start = {"all": _rng.get_state(), "own": self._states()}
            return self._iterate()
        now, others = _rng.get_state(), [_rng.state_of(g) for g in self._others]
        _rng.set_state(self._start["all"])
        self._set(self._start["own"])
        batches = self._iterate()
        for i in range(self.taken):
            if next(batches, self) is self:
                raise ValueError(
                    f"job.batches: the loader has only {i} batches in epoch {self.epoch}, of which {self.taken} were "
                    "trained on before. The data is not what it was: bring it back, or train with --fresh."
                )
        _rng.set_state(now)
        for generator, state in zip(self._others, others, strict=True):
            _rng.set_state_of(generator, state)
        self._set(own)
        return batches

    def next_epoch(self) -> None:
        """Goes to the start of the next epoch."""
        if not self.taken:
            raise ValueError(
                f"job.batches: the {type(self.loader).__name__} gives no batch in epoch {self.epoch}. It may be empty, "
                "or can be gone through only once: give a data loader, a list, or what can be iterated again."
            )
        self.epoch, self.taken = self.epoch + 1, 0

    def _iterate(self) -> Iterator[Any]:
        for part in (self.loader, *(getattr(self.loader, p, None) for p in PARTS)):
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(self.epoch)
        if getattr(self.loader, "persistent_workers", False):
            # Processes that live on carry the random state of all epochs before,
            # which nothing can bring back: each epoch gets new ones.
            self.loader._iterator = None
        return iter(self.loader)

    def _batch_size(self) -> int:
        sizes = (getattr(self.loader, "batch_size", None), _inner(self.loader, "batch_sampler", "batch_size"))
        return next((n for n in sizes if isinstance(n, int) and n > 0), self._default)

    def _generators(self) -> list[Any]:
        """The loader's own generators and those of what it is made of, in a fixed order."""
        found: list[Any] = []
        _collect(self.loader, DEPTH, found, set())
        return found

    def _states(self) -> list[Any]:
        return [_rng.state_of(g) for g in self._generators()]

    def _set(self, states: list[Any]) -> None:
        # A program that makes other generators now than before is another one.
        for generator, state in zip(self._generators(), states, strict=False):
            _rng.set_state_of(generator, state)


def length(loader: Any) -> int:
    """The number of batches of an epoch, or 0 if nobody knows."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return 0


def _inner(value: Any, part: str, name: str) -> Any:
    return getattr(getattr(value, part, None), name, None)


def _collect(owner: Any, depth: int, found: list[Any], seen: set[int]) -> None:
    if owner is None or depth == 0 or id(owner) in seen:
        return
    seen.add(id(owner))
    attributes = getattr(owner, "__dict__", {})
    for value in attributes.values():
        if _rng.kind(value) and not any(value is g for g in found):
            found.append(value)
    for name, value in attributes.items():
        if name in PARTS:
            for one in value if isinstance(value, (list, tuple)) else [value]:
                _collect(one, depth - 1, found, seen)
