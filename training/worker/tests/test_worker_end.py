"""The end of a program: between its last step and its seal nothing can go wrong that would not come right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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


# A program that nobody runs for it, as the command of a plan.
OWN = "import outlast, os, sys\njob = outlast.job()\n" + PROGRAM.replace("job.finish(loss=loss)", "seen.append(loss)")


def reasons(ended: worker_rig.Ended) -> list[tuple[int, str]]:
    return [(e["step"], e["reason"]) for e in ended.all("checkpoint")]


def test_a_program_of_its_own_hands_over_what_it_ends_with(run: Run) -> None:
    ended = run(OWN, kind="command", checkpoint_every={"steps": 2})
    assert ended.status == 0
    assert reasons(ended) == [(2, "due"), (4, "end")]
    assert ended.events[-1] == {"event": "progress", "step": 4, "total": 4}
    folder = Path(ended.checkpoint["path"])
    assert json.loads((folder / "seen.json").read_text()) == [0, 1, 2, 3, 0.25]

    # The supervisor took it over, and died before it could seal it.
    again = run(OWN, kind="command", checkpoint=ended.checkpoint)
    assert again.output == ""
    assert again.one("finish")["metrics"] == {"loss": 0.25}


def test_a_program_of_its_own_that_stops_early_goes_on_there(run: Run) -> None:
    early = OWN.replace("    loss = ", "    if step == 2: break\n    loss = ")
    ended = run(early, kind="command")
    assert reasons(ended) == [(3, "end")]
    again = run(OWN, kind="command", checkpoint=ended.checkpoint)
    assert again.output == "ran\n", "it was no end of training"


def test_where_a_program_of_its_own_does_not_end_well_there_is_no_end(run: Run) -> None:
    finished = run(OWN + "\njob.finish()", kind="command")
    assert reasons(finished) == [(4, "final")]
    paused = run(OWN, kind="command", params={"pause_in": 1})
    assert (paused.status, reasons(paused)) == (75, [(2, "pause")])
    raised = run(OWN + "\nraise ValueError", kind="command")
    assert (raised.status, reasons(raised)) == (1, [])
    unused = run("import outlast\noutlast.job().params", kind="command")
    assert (unused.status, reasons(unused)) == (0, [])


def test_a_fork_of_a_program_has_no_end_of_its_own(run: Run) -> None:
    ended = run(OWN + "\nif os.fork() == 0: sys.exit(0)\nos.wait()", kind="command")
    assert reasons(ended) == [(4, "end")]
    assert len(list(Path(ended.checkpoint["path"]).parent.iterdir())) == 1


def test_an_end_that_cannot_be_handed_over_is_a_failure(run: Run) -> None:
    ended = run(OWN + "\nseen.append(lambda: None)", kind="command")
    failed = ended.one("failed")
    assert failed["kind"] == "user"
    assert "seen" in failed["message"]
    assert failed["message"] in ended.output
