"""The adapter for lightning.Trainer, from Lightning 2.5 on.

``outlast = job.callback("lightning")`` goes among the callbacks, and the
trainer is called as ``trainer.fit(model, outlast.loader(train_loader),
ckpt_path=outlast.ckpt_path)``. Without outlast.loader it goes on in mid-epoch
as Lightning does: with other batches.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _checkpoint, _rng
from ._batches import Position, length
from ._trainers import Adapter

if TYPE_CHECKING:
    from ._job import Job

FILE = "lightning.ckpt"


def make(job: Job) -> Adapter:
    """The adapter, with a lightning Callback as its callback."""
    name = "lightning.pytorch" if importlib.util.find_spec("lightning") else "pytorch_lightning"
    base = importlib.import_module(name).Callback
    adapter = Lightning(job)
    adapter.callback = type("OutlastCallback", (_Hooks, base), {})()
    adapter.callback.adapter = adapter
    return adapter


class Lightning(Adapter):
    """Has the trainer write its own kind of checkpoint whenever ours are due."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.trainer: Any = None
        self.loader: Loader | None = None

    def write(self, folder: Path) -> None:
        """Has the trainer save."""
        if self.trainer is not None:
            self.trainer.save_checkpoint(folder / FILE)


class _Hooks:
    """The events of a trainer; see lightning.pytorch.Callback."""

    adapter: Lightning

    @property
    def ckpt_path(self) -> str | None:
        """What trainer.fit takes to go on from the latest checkpoint."""
        folder = self.adapter.job.load()
        return str(folder / FILE) if folder and (folder / FILE).exists() else None

    def loader(self, loader: Any) -> Loader:
        """The loader, with a position that a checkpoint holds."""
        self.adapter.loader = Loader(loader, self.adapter.job)
        return self.adapter.loader

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Training begins, perhaps with the state of a checkpoint."""
        adapter = self.adapter
        adapter.trainer = trainer
        # Lightning has put its own in the place of ours; it knows nothing of a pause.
        signal.signal(signal.SIGTERM, adapter.job._on_sigterm)
        total = trainer.estimated_stepping_batches
        adapter.begin(trainer.global_step, int(total) if total < float("inf") else 0)

    def on_train_batch_start(self, *_: Any) -> None:
        """Whatever was logged for the step before has been logged."""
        self.adapter.flush()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """A batch is complete. Between the batches of one update nothing is saved."""
        adapter, step = self.adapter, trainer.global_step
        adapter.log(max(0, step - 1), dict(trainer.callback_metrics))
        if step == adapter.job._step:
            return
        adapter.wanted = adapter.completed(step) or adapter.wanted
        # Not at the end of an epoch: a checkpoint of Lightning's lacks the step of the
        # schedulers there, which comes after every hook, and is not made up for later.
        if adapter.wanted and not trainer.is_last_batch:
            self._save(trainer)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """A validation has been logged."""
        if not trainer.sanity_checking:
            self.adapter.log(max(0, trainer.global_step - 1), dict(trainer.callback_metrics))

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """An epoch is complete. Those of a single batch have no other place to save."""
        self.adapter.log(max(0, trainer.global_step - 1), dict(trainer.callback_metrics))
        if self.adapter.loader:
            self.adapter.loader.next_epoch()
        if self.adapter.wanted and trainer.num_training_batches == 1:
            self._save(trainer)

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        """Training is over."""
        self.adapter.end(trainer.global_step)

    def _save(self, trainer: Any) -> None:
        self.adapter.wanted = False
        self.adapter.save(trainer.global_step)


class Loader:
    """A data loader that goes on where a checkpoint was made, with the batches that come next.

    Lightning puts the state of a loader that has one into its checkpoints.
    """

    def __init__(self, loader: Any, job: Job) -> None:
        self._job = job
        self._loader = loader
        self._position = Position(loader, job.batch_size, [])
        self._resumed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        if count := length(self._loader):
            return count
        raise TypeError(f"a {type(self._loader).__name__} has no length")

    def __iter__(self) -> Iterator[Any]:
        folder = self._job.load()
        if self._resumed and folder:
            _rng.set_state(_checkpoint.read(folder)["rng"])
        elif self._position.taken:  # an epoch that was broken off, such as by limit_train_batches
            self.next_epoch()
        self._resumed = False
        for batch in self._position.begin():
            self._position.taken += 1
            yield batch

    def next_epoch(self) -> None:
        """The epoch is over."""
        if self._position.taken:
            self._position.next_epoch()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return self._position.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sets what state_dict returned."""
        if note := self._position.restore(state):
            self._job._events.send("note", kind="batch_size", step=self._job._step, message=note)
        self._resumed = True
