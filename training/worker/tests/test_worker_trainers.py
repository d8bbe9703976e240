"""The adapters against the real trainers, where these are installed: see requirements-trainers.txt."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trainer_programs
import worker_rig
from outlast._job import Job
from outlast._trainers import Adapter
from resume_rig import write_manifest

Run = Callable[..., worker_rig.Ended]

TRAINERS = {
    "transformers": (trainer_programs.TRANSFORMERS, 15),
    "lightning": (trainer_programs.LIGHTNING, 18),
    "keras": (trainer_programs.KERAS, 24),
}


def program(name: str) -> str:
    """The program of a trainer, if it can run here."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; see training/worker/tests/requirements-trainers.txt")
    return trainer_programs.DEADLY + TRAINERS[name][0]


def hand_over(ended: worker_rig.Ended, folder: Path) -> dict[str, Any]:
    """Makes the newest checkpoint the supervisor's own."""
    event = ended.all("checkpoint")[-1]
    target = folder / f"checkpoint-{event['step']}"
    shutil.move(event["path"], target)
    write_manifest(target)
    return {"step": event["step"], "path": str(target)}


@pytest.mark.parametrize("how", ["killed", "paused"])
@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_that_is_stopped_comes_to_the_same_result(name: str, how: str, run: Run, tmp_path: Path) -> None:
    source, total = program(name), TRAINERS[name][1]
    options: dict[str, Any] = {"grad_accum": 1, "checkpoint_every": {"steps": 3}}
    want = run(source, **options)
    assert want.status == 0, str(want)
    assert [step for step, _ in want.metrics] == list(range(total)), "each step once"
    number = signal.SIGKILL if how == "killed" else signal.SIGTERM
    first = run(source, params={"die_at": 13, "signal": int(number)}, **options)
    assert first.status == (-9 if how == "killed" else 75), str(first)
    checkpoint = hand_over(first, tmp_path)
    assert checkpoint["step"] > 0
    second = run(source, checkpoint=checkpoint, **options)
    assert second.one("restored")["step"] == checkpoint["step"], str(second)
    kept = [m for m in first.metrics if m[0] < checkpoint["step"]]
    assert kept + second.metrics == want.metrics
    assert second.one("finish")["metrics"]["digest"] == want.one("finish")["metrics"]["digest"]
    assert second.one("finish")["step"] == total
    assert [e["reason"] for e in second.all("checkpoint")][-1] == "final"


def test_the_final_model_of_transformers_is_read_by_transformers(run: Run, tmp_path: Path) -> None:
    ended = run(program("transformers"))
    final = ended.all("checkpoint")[-1]["path"]
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(final).config.n_layer == 2


def test_what_a_trainer_calls_step_or_time_is_renamed(tmp_path: Path) -> None:
    events = worker_rig.Recorder()
    adapter = Adapter(Job(worker_rig.spec(tmp_path), events))
    adapter.log(0, {"step": 3, "time": 0.5, "epoch": 1.0})
    adapter.flush()
    (metrics,) = events.events
    assert metrics["step"] == 0
    assert metrics["values"] == {"logged_step": 3, "logged_time": 0.5, "epoch": 1.0}
    assert adapter.job._last == metrics["values"]


def test_an_unknown_trainer_is_refused(run: Run) -> None:
    failed = run("job.callback('fastai')").one("failed")
    assert failed["type"] == "ValueError"
    assert "transformers, lightning, keras" in failed["message"]


def test_a_trainer_that_is_not_installed_is_an_error_of_the_users(run: Run) -> None:
    failed = run("import sys\nsys.modules['transformers'] = None\njob.callback('transformers')").one("failed")
    assert failed["type"] in ("ImportError", "ModuleNotFoundError")
    assert os.environ.get("OUTLAST_JOB") is None
