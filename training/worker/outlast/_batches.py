"""The position inside an epoch, so that a resume draws the very same batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _rng


class Position:
    """Where in the data training is: the epoch, and the batches taken of it.

    The order of an epoch is decided when its iterator is made, by the random
    state of that moment. That state is therefore part of a checkpoint: to go on
    in mid-epoch it is set again, the iterator made anew, the batches that were
    trained on are drawn and dropped, and only then the generators, the loader's
    own among them, get the state they had when the checkpoint was made.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.epoch = 0
        self.taken = 0
        self.start: dict[str, Any] = {}
        self.own: list[str] = []

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        own = self._own()
        return {"epoch": self.epoch, "taken": self.taken, "start": self.start, "own": own}

    def restore(self, state: dict[str, Any]) -> None:
        """Sets what state returned."""
        self.epoch, self.taken, self.start = state["epoch"], state["taken"], state["start"]
        self.own = state["own"]

    def begin(self) -> Iterator[Any]:
        """Makes the iterator of the present epoch, at the present position."""
        if hasattr(getattr(self.loader, "sampler", None), "set_epoch"):
            self.loader.sampler.set_epoch(self.epoch)
        if not self.taken:
            self.start = self._random()
            return iter(self.loader)
        now = _rng.get_state()
        self._set_random(self.start)
        batches = iter(self.loader)
        for _ in range(self.taken):
            next(batches)
        _rng.set_state(now)
        self._set_own(self.own)
        return batches

    def next_epoch(self) -> None:
        """Goes to the start of the next epoch."""
        self.epoch, self.taken = self.epoch + 1, 0

    def _generators(self) -> list[Any]:
        """The loader's own generators; those of its samplers are often the same."""
        sampler = getattr(self.loader, "sampler", None)
        batch_sampler = getattr(self.loader, "batch_sampler", None)
        owners = [self.loader, sampler, batch_sampler, getattr(batch_sampler, "sampler", None)]
        found: list[Any] = []
        for owner in owners:
            generator = getattr(owner, "generator", None)
            if hasattr(generator, "get_state") and not any(generator is g for g in found):
                found.append(generator)
        return found

    def _random(self) -> dict[str, Any]:
        return {"all": _rng.get_state(), "own": self._own()}

    def _set_random(self, state: dict[str, Any]) -> None:
        _rng.set_state(state["all"])
        self._set_own(state["own"])

    def _own(self) -> list[str]:
        return [_rng.pack(g.get_state()) for g in self._generators()]

    def _set_own(self, states: list[str]) -> None:
        for generator, state in zip(self._generators(), states):
            generator.set_state(_rng.unpack(state))
