"""The end of a program: between its last step and its seal nothing can go wrong that would not come right."""

from __future__ import annotations

from collections.abc import Callable

import worker_rig

Run = Callable[..., worker_rig.Ended]

# What comes behind its loop needs what the loop has left behind, as much code does.
PROGRAM = """
import signal
total = job.params.get("steps", 4)
seen = []
job.track(seen=seen)
for step in job.steps(total):
    seen.append(step)
    loss = 1 / (1 + step)
    job.log(loss=loss)
    if step == job.params.get("pause_in"):
        signal.raise_signal(signal.SIGTERM)
print("ran")
job.finish(loss=loss)
"""


def test_a_program_that_was_sealed_is_not_run_again(run: Run) -> None:
    first = run(PROGRAM)
    final = first.one("checkpoint")
    assert final["reason"] == "final"

    # The supervisor died before it could take note of the seal.
    again = run(PROGRAM, checkpoint={"step": final["step"], "path": final["path"]})
    assert again.status == 0
    assert again.output == "", "its loop would have no step, and loss no value"
    assert again.kinds == ["hello", "restored", "finish"]
    assert again.one("finish")["metrics"] == first.one("finish")["metrics"]
    assert again.one("finish")["step"] == 4


def test_the_last_step_is_saved_by_the_end_alone(run: Run) -> None:
    ended = run(PROGRAM, checkpoint_every={"steps": 2})
    saved = [(e["step"], e["reason"]) for e in ended.events if e["event"] == "checkpoint"]
    assert saved == [(2, "due"), (4, "final")], "nobody could go on behind the last step"


def test_a_pause_in_the_last_step_lets_the_program_end(run: Run) -> None:
    ended = run(PROGRAM, params={"pause_in": 3})
    assert ended.status == 0
    assert ended.kinds[-1] == "finish"
    assert "paused" not in ended.kinds
