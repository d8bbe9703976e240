"""What a program may use, in a run and outside of one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import outlast
import pytest
import worker_rig

Run = Callable[..., worker_rig.Ended]

FIELDS = [
    *("name", "params", "run", "seed", "attempt", "batch_size", "grad_accum", "effective_batch", "precision"),
    *("lora_rank", "device", "grad_checkpointing", "dir"),
]
METHODS = ["track", "steps", "batches", "log", "save", "load", "finish", "callback"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_does(name: str) -> None:
    assert len((getattr(outlast.Job, name).__doc__ or "").split()) > 4


def test_every_field_is_there_in_a_run_and_told_in_the_help(run: Run) -> None:
    ended = run(f"for name in {FIELDS!r}: getattr(job, name)\nhelp(type(job))")
    assert ended.status == 0, str(ended)
    assert all(f"``{name}``" in outlast.Job.__doc__ for name in FIELDS)


# With everything a program can ask of a job.
SCRIPT = f"""
import random
random.seed(12)
expected = random.Random(12).random()
import outlast
job = outlast.job()
assert random.random() == expected, "its random numbers are its own"
for name in {FIELDS!r}: getattr(job, name)
state = {{"n": 0}}
job.track(state=state)
assert job.load() is None
for batch in job.batches([1, 2, 3], epochs=2):
    state["n"] += batch
    job.log(n=state["n"])
    job.save()
job.finish(n=state["n"])
print(state["n"], job.step, job.epoch)
"""


def test_a_script_runs_unchanged_outside_a_run(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], env=worker_rig.environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "12 6 2\n", "")


@pytest.mark.parametrize(
    ("source", "cure"),
    [
        ("for _ in job.steps('ten'): pass", "a str is no whole number"),
        ("for _ in job.batches([1], 1.5): pass", "a float is no whole number"),
        ("for _ in job.batches([], 1): pass", "gives no batch in epoch 0"),
        ("for _ in job.batches(iter([1]), 2): pass", "gives no batch in epoch 1"),
        ("for _ in job.steps(1): job.log(loss=[1, 2])", "a list is no number"),
        ("import numpy\nfor _ in job.steps(1): job.log(loss=numpy.ones(2))", "a ndarray is no number"),
        ("for _ in job.steps(1): pass\nfor _ in job.steps(1): pass", "a job has one loop"),
        ("for _ in job.steps(1): job.track(a=[])", "job.track comes before the loop"),
        ("job.finish()\njob.finish()", "called twice"),
        ("job.track(manifest=[])", "a file of Outlast's own"),
        ("job.track(best=0.5)", "goes into a dict"),
    ],
)
def test_what_cannot_work_is_refused_with_a_cure(source: str, cure: str, run: Run) -> None:
    assert cure in run(source).one("failed")["message"]


def test_a_smaller_batch_goes_on_with_the_samples_that_were_left(run: Run) -> None:
    source = (
        "class Loader:\n"
        "    def __init__(self): self.batch_size = job.batch_size\n"
        "    def __len__(self): return 48 // self.batch_size\n"
        "    def __iter__(self):\n"
        "        return (list(range(i, i + self.batch_size)) for i in range(0, 48, self.batch_size))\n"
        "seen = []\n"
        "job.track(seen=seen)\n"
        "for batch in job.batches(Loader(), 2):\n"
        "    seen += batch\n"
        "    job.log(n=len(seen))\n"
        "    if job.step == job.params.get('die_at'): raise RuntimeError\n"
        "assert seen == [*range(48), *range(48)], seen"
    )
    for die_at, step in ((4, 4), (7, 7)):
        first = run(source, batch_size=8, checkpoint_every={"steps": 1}, params={"die_at": die_at})
        second = run(source, batch_size=4, checkpoint=first.checkpoint)
        assert second.status == 0, str(second)
        assert second.one("note")["kind"] == "batch_size"
        assert [s for s, _ in second.metrics] == list(range(step, step + 24 - 2 * step)), "no step twice"
        assert {e["total"] for e in second.all("progress")} == {24 - step}
