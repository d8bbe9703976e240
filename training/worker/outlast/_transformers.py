"""The adapter for transformers.Trainer.

It is resumed by ``trainer.train(resume_from_checkpoint=job.load())``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._trainers import Adapter

if TYPE_CHECKING:
    from ._job import Job


def make(job: Job) -> Adapter:
    """The adapter, with a TrainerCallback as its callback."""
    from transformers import TrainerCallback

    adapter = Transformers(job)
    adapter.callback = type("OutlastCallback", (_Hooks, TrainerCallback), {})()
    adapter.callback.adapter = adapter
    return adapter


class Transformers(Adapter):
    """Takes the trainer's own checkpoint folders, whenever and for whatever reason it saves.

    They are copied: the trainer may write to its folder of the same number again.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.folder: Path | None = None
        self.model: Any = None

    def write(self, folder: Path) -> None:
        """Copies the newest folder; at the end, the model as it is then."""
        if self.folder and self.folder.is_dir():
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        if self.model is not None:  # the best one, if the trainer has loaded it
            self.model.save_pretrained(folder)


class _Hooks:
    """The events of a trainer; see transformers.TrainerCallback."""

    adapter: Transformers

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training begins, perhaps with the state of a checkpoint."""
        self.adapter.begin(state.global_step, state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Whatever was logged for the step before has been logged."""
        self.adapter.flush()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """A step is complete: the trainer saves if we want it to, and at the end."""
        wanted = self.adapter.completed(state.global_step)
        if wanted or state.global_step >= state.max_steps:
            control.should_save = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """The trainer has logged something."""
        self.adapter.log(max(0, state.global_step - 1), logs or {})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The trainer has saved."""
        self.adapter.folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.adapter.save(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Training is over."""
        self.adapter.model = model
        self.adapter.end(state.global_step)
