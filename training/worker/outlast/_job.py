"""The job: what to train, how, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _checkpoint, _failure, _imports, _numbers, _rng, _stage, _state, _trainers
from ._batches import Position
from ._events import Events
from ._gradients import Gradients

# Exit status of a worker that saved and ended because it was asked to
# (EX_TEMPFAIL: try again later).
PAUSED = 75

# Progress is for people: four times a second is more than they can read.
PROGRESS_SECONDS = 0.25

UNTRACKED = "job.track was not called, so nothing was restored: training begins at step 0 again"


class Pause(SystemExit):
    """Ends the worker after it has saved. No ``except Exception`` catches it."""

    def __init__(self) -> None:
        super().__init__(PAUSED)


class Job:
    """One model to train. Its methods are for the training thread only.

    ``name``, ``run``, ``params``, ``seed``, ``attempt`` say what to train;
    ``batch_size``, ``grad_accum``, ``effective_batch``, ``precision``,
    ``lora_rank``, ``device``, ``grad_checkpointing``, ``memory_fraction`` how,
    on this machine; ``dir`` is a scratch folder of this model.
    """

    def __init__(self, spec: dict[str, Any], events: Events) -> None:
        self.name: str = spec["name"]
        self.run: str = spec["run"]
        self.params: dict[str, Any] = spec["params"]
        self.seed: int = spec["seed"]
        self.attempt: int = spec["attempt"]
        self.batch_size: int = spec["batch_size"]
        self.grad_accum: int = spec["grad_accum"]
        self.effective_batch: int = spec["effective_batch"]
        self.precision: str = spec["precision"]
        self.lora_rank: int = spec["lora_rank"]
        self.device: str = spec["device"]
        self.grad_checkpointing: bool = spec["grad_checkpointing"]
        self.memory_fraction: float = spec["memory_fraction"]
        self.dir = Path(spec["dir"])
        self.dir.mkdir(parents=True, exist_ok=True)

        self._events = events
        self._stage = _stage.of(spec, events)
        self._pace = _stage.Pace(spec["checkpoint_every"])
        self._checkpoint: dict[str, Any] | None = spec["checkpoint"]
        self._tracked: dict[str, Any] = {}
        self._gradients = Gradients(self._tracked)
        self._trainer: _trainers.Adapter | None = None
        self._restored: dict[str, Any] | None = None
        self._position: Position | None = None
        self._step = 0
        self._total = 0
        self._pending: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._told = 0.0
        self._asked_to_pause = False
        self._asked_to_save = False
        self._looped = False
        self._in_loop = False
        self._in_body = False
        self._said_restored = False
        self._finished = self._paused = self._sealing = False
        self._managed = False  # its code is run by us, and what it ends with is sealed by us

    def __repr__(self) -> str:
        return f"<outlast job {self.run}/{self.name}, attempt {self.attempt}, step {self._step}>"

    @property
    def step(self) -> int:
        """The number of the present step: within a loop, what steps() yielded."""
        self._settle()
        return self._step

    @property
    def epoch(self) -> int:
        """The present epoch of batches(), from 0; before the loop, the one it will begin in."""
        if self._position:
            return self._position.epoch
        position = (self._restored or {}).get("position")
        return position["epoch"] if position else 0

    def track(self, **objects: Any) -> None:
        """Names what a checkpoint holds, and restores the latest one at once.

        Objects need state_dict and load_state_dict, or are tensors, arrays,
        generators, or dicts and lists of all these. The global random generators
        are part of it too. They get their state when the loop begins: what a
        program draws before that, such as a split of its data, must be the same
        every time.
        """
        if self._looped:
            raise RuntimeError("job.track comes before the loop: it restores the step to begin at")
        for name, value in objects.items():
            _state.check(name, value)
        self._tracked.update(objects)
        folder = self.load()
        if folder is None:
            return
        self._restored = state = _checkpoint.read(folder)
        _checkpoint.restore(folder, state, objects, self.device)
        self._step = state["step"]
        self._last = state["metrics"]
        self._say_restored()

    def _say_restored(self) -> None:
        if not self._said_restored:
            self._events.send("restored", step=self._step, versions=_imports.versions())
            self._said_restored = True

    def steps(self, total: int) -> Iterator[int]:
        """Yields the numbers of the steps still to do, of 0 to total - 1.

        After each one it saves if a checkpoint is due, and ends the worker if it
        was asked to pause. A step that is left by ``break`` counts as done.
        """
        total = _numbers.whole(total, "job.steps(total)")
        self._enter(total)
        try:
            while self._step < total:
                self._body()
                yield self._step
                self._completed()
        finally:
            self._leave()

    def batches(self, loader: Any, epochs: int) -> Iterator[Any]:
        """Yields the batches of a data loader, for so many epochs; each is a step.

        After a resume it goes on with the batch that would have come next, in
        the order of the run that was not disturbed. job.epoch and job.step say
        where it is.
        """
        epochs = _numbers.whole(epochs, "job.batches(loader, epochs)")
        generators = [v for v in self._tracked.values() if _rng.kind(v)]
        position = Position(loader, self.batch_size, generators)
        before = self._restored and self._restored["position"]
        if before and (note := position.restore(before)):
            self._events.send("note", kind="batch_size", step=self._step, message=note)
        left = position.left(epochs)
        self._enter(0 if left is None else self._step + left)
        self._position = position
        try:
            while position.epoch < epochs:
                for batch in position.begin():
                    position.taken += 1
                    self._body()
                    yield batch
                    self._completed()
                position.next_epoch()
        finally:
            self._leave()

    def _enter(self, total: int) -> None:
        if self._in_loop:
            raise RuntimeError("one loop over job.steps or job.batches at a time")
        if self._looped:
            raise RuntimeError("a job has one loop over job.steps or job.batches")
        self._looped = self._in_loop = True
        self._total = total
        folder = self.load()
        if self._restored and folder:
            self._gradients.restore(folder, self._restored["gradients"])
            _rng.set_state(self._restored["rng"])
        elif folder:
            self._events.send("note", kind="untracked", step=0, message=UNTRACKED)
        self._say_restored()
        self._pace.saved(self._step)
        self._progress()

    def _leave(self) -> None:
        self._in_loop = False
        self._events.flush()

    def _body(self) -> None:
        self._gradients.watch()
        self._in_body = True

    def _settle(self) -> None:
        """Counts a step that was left by break.

        An exception leaves the loop in the same way, but the step that raised
        it is not done: that shows only when the program goes on.
        """
        if self._in_body and not self._in_loop:
            self._in_body = False
            self._flush_metrics()
            self._step += 1
            self._progress()

    def _completed(self) -> None:
        """Takes note of a step whose body has run."""
        self._in_body = False
        if self._pending:
            self._flush_metrics()
        self._step += 1
        # Behind the last step only the end of the program is left, and it may
        # want what its loop has left behind: nobody resumes there.
        last = self._step == self._total
        now = self._progressed(last)
        if self._asked_to_pause and not last:
            self._save("pause")
            self._pause()
        asked, self._asked_to_save = self._asked_to_save, False
        if not last and (asked or self._pace.due(self._step, now)):
            self._save("asked" if asked else "due")

    def _progressed(self, last: bool) -> float:
        """Tells the progress if it is time for that; returns the time."""
        now = time.monotonic()
        if last or now - self._told >= PROGRESS_SECONDS:
            self._progress()
        return now

    def _progress(self) -> None:
        self._told = time.monotonic()
        self._events.send("progress", step=self._step, total=self._total)

    def log(self, **metrics: Any) -> None:
        """Notes numbers for this step, which is noted by itself; several calls in one step are one entry."""
        self._settle()
        self._pending.update(_numbers.logged(metrics))
        self._last.update(self._pending)

    def _flush_metrics(self) -> None:
        if self._pending:
            self._events.hold("metrics", step=self._step, time=time.time(), values=self._pending)
            self._pending = {}

    def save(self) -> None:
        """Saves now. Within a loop it is done at the end of the step; behind the last one the end saves."""
        if self._in_loop:
            self._asked_to_save = True
            return
        self._settle()
        self._flush_metrics()
        self._save("asked")

    def load(self) -> Path | None:
        """The folder of the latest verified checkpoint, or None."""
        return Path(self._checkpoint["path"]) if self._checkpoint else None

    def _save(self, reason: str) -> None:
        self._pace.saved(self._step)
        self._sealing = reason == "final" or (reason == "end" and self._step == self._total)
        if self._stage:
            self._stage.put(self._step, reason, self._fill, self._estimate)

    def _estimate(self) -> int | None:
        # What a trainer writes only the trainer knows.
        return None if self._trainer else _checkpoint.size(self._tracked)

    def _fill(self, folder: Path) -> dict[str, Any]:
        """Writes a checkpoint's files, and returns what stands beside them in outlast.json."""
        if self._trainer:
            self._trainer.write(folder)
        return {
            "format": 1,
            "step": self._step,
            "total": self._total,
            "final": self._sealing,
            "position": self._position.state() if self._position else None,
            "gradients": self._gradients.save(folder),
            "rng": _rng.get_state(),
            "metrics": self._last,
            "trainer": self._trainer.state if self._trainer else None,
            **_checkpoint.write(folder, self._tracked),
        }

    def _pause(self) -> None:
        self._paused = True
        self._events.send("paused", step=self._step)
        raise Pause

    def finish(self, **metrics: Any) -> None:
        """Seals the result: the present state becomes final, the model is done."""
        if self._finished:
            raise RuntimeError("job.finish was called twice: the model is done")
        self._settle()
        self._say_restored()
        self._flush_metrics()
        # Not logged: they belong to the model, and there is no step of this number.
        self._last = {**self._last, **_numbers.plain(metrics)}
        self._save("final")
        self._progress()
        self._events.send("finish", step=self._step, metrics=self._last, **_failure.peak())
        self._finished = True

    def _end(self) -> None:
        """Hands over what a program of its own ends with.

        It is no finish: the supervisor takes it if the program's status is 0.
        """
        if self._managed or self._finished or self._paused or not (self._looped or self._tracked):
            return
        self._settle()
        self._say_restored()
        self._flush_metrics()
        self._save("end")
        self._progress()

    def callback(self, trainer: str) -> Any:
        """The adapter for a trainer: ``"transformers"``, ``"lightning"`` or ``"keras"``.

        It is given to the trainer among its callbacks, in the place of a loop
        over steps or batches. Its class says how that trainer is resumed.
        """
        self._trainer = _trainers.make(trainer, self)
        return self._trainer.callback

    def _on_sigterm(self, *_: Any) -> None:
        self._asked_to_pause = True
