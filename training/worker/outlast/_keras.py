"""The adapter for keras.Model.fit, Keras 3.

It restores the weights, the optimizer and the epoch to begin with by itself,
and saves at the ends of epochs: Keras has no way into the middle of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _checkpoint, _rng
from ._trainers import Adapter

if TYPE_CHECKING:
    from ._job import Job

FILE = "model.weights.h5"


def make(job: Job) -> Adapter:
    """The adapter, with a keras Callback as its callback."""
    from keras.callbacks import Callback

    adapter = Keras(job)
    adapter.callback = type("OutlastCallback", (_Hooks, Callback), {})()
    adapter.callback.adapter = adapter
    return adapter


class Keras(Adapter):
    """Keeps weights and optimizer in one file of Keras, and the whole model beside it at the end."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.model: Any = None
        self.over = False

    def write(self, folder: Path) -> None:
        """Has the model save."""
        if self.model is None:
            return
        self.model.save_weights(folder / FILE)
        if self.over:
            self.model.save(folder / "model.keras")


class _Hooks:
    """The events of fit; see keras.callbacks.Callback."""

    adapter: Keras
    step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Training begins: here the state of a checkpoint is set."""
        adapter, params = self.adapter, self.params
        adapter.model = self.model
        folder = adapter.job.load()
        if folder and (folder / FILE).exists():
            self._restore(folder, params)
        adapter.begin(self.step, (params.get("steps") or 0) * params["epochs"])

    def _restore(self, folder: Path, params: dict[str, Any]) -> None:
        if not self.model.built:
            raise ValueError("Build the model before fit, so that its weights can be restored: keras.Input, or a call.")
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(folder / FILE)
        state = _checkpoint.read(folder)
        self.step = state["step"]
        self.model._initial_epoch = state["trainer"]["epoch"]
        self.adapter.state = state["trainer"]
        _rng.set_state(state["rng"])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A batch is complete."""
        self.step += 1
        self.adapter.log(self.step - 1, logs or {})
        self.adapter.wanted = self.adapter.completed(self.step) or self.adapter.wanted

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Whatever was logged for the batch before has been logged."""
        self.adapter.flush()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """An epoch is complete, and its validation."""
        self.adapter.log(self.step - 1, logs or {})
        self.adapter.state = {"epoch": epoch + 1}
        if self.adapter.wanted:
            self.adapter.wanted = False
            self.adapter.save(self.step)

    def on_train_end(self, logs: Any = None) -> None:
        """Training is over."""
        self.adapter.over = True
        self.adapter.end(self.step)
