"""SIGTERM asks a worker to pause: it saves after the step, says so, and ends with 75."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import worker_rig

Run = Callable[..., worker_rig.Ended]
Start = Callable[..., worker_rig.Worker]

PAUSED = 75

# Endless, as far as the tests are concerned: only a pause ends it.
ENDLESS = """
done = []
job.track(done=done)
for step in job.steps(10**12):
    done[:] = [step + 1]
"""

# Asks itself to pause in one step of six, as a supervisor might.
SIX = """
import signal
seen = []
job.track(seen=seen)
for step in job.steps(6):
    seen.append(step)
    job.log(loss=step)
    if step == job.params.get("pause_in"):
        signal.raise_signal(signal.SIGTERM)
print("seen", *seen)
"""


def test_sigterm_pauses_with_a_checkpoint(start: Start) -> None:
    worker = start(ENDLESS)
    worker.await_event("progress")
    worker.terminate()
    ended = worker.ended()
    assert ended.kinds == ["hello", "restored", "checkpoint", "paused"]
    assert ended.status == PAUSED
    checkpoint, paused = ended.one("checkpoint"), ended.one("paused")
    assert checkpoint["reason"] == "pause"
    assert checkpoint["step"] == paused["step"] > 0
    done = json.loads((Path(checkpoint["path"]) / "done.json").read_text())
    assert done == [paused["step"]], "the checkpoint must hold exactly the completed steps"
    assert ended.output == "", "a pause is no error"


def test_asking_twice_is_asking(start: Start) -> None:
    worker = start(ENDLESS)
    worker.await_event("progress")
    worker.terminate()
    worker.terminate()
    ended = worker.ended()
    assert ended.status == PAUSED
    ended.one("paused")


def test_the_step_is_completed_before_the_pause(run: Run) -> None:
    ended = run(SIX, params={"pause_in": 3})
    assert ended.one("paused")["step"] == 4
    assert [step for step, _ in ended.metrics] == [0, 1, 2, 3]
    assert "seen" not in ended.output


def test_a_pause_that_was_asked_for_before_the_loop_comes_after_one_step(run: Run) -> None:
    ended = run("import signal\nsignal.raise_signal(signal.SIGTERM)\n" + SIX)
    assert ended.one("paused")["step"] == 1


def test_a_resumed_run_does_the_other_steps_and_only_these(run: Run) -> None:
    first = run(SIX, params={"pause_in": 2})
    second = run(SIX, params={"pause_in": 3}, checkpoint=first.checkpoint)
    third = run(SIX, checkpoint=second.checkpoint)
    assert [e.one("restored")["step"] for e in (first, second, third)] == [0, 3, 4]
    steps = [step for e in (first, second, third) for step, _ in e.metrics]
    assert steps == [0, 1, 2, 3, 4, 5]
    assert third.output == "seen 0 1 2 3 4 5\n"


def test_batches_pause_too(run: Run) -> None:
    source = (
        "import signal\n"
        "for batch in job.batches(['a', 'b', 'c'], epochs=2):\n"
        "    print(job.epoch, job.step, batch)\n"
        "    if job.step == 4: signal.raise_signal(signal.SIGTERM)"
    )
    ended = run(source)
    assert ended.output.splitlines()[-1] == "1 4 b"
    assert (ended.one("paused")["step"], ended.status) == (5, PAUSED)


def test_except_exception_does_not_swallow_a_pause(run: Run) -> None:
    ended = run(
        "import signal\n"
        "try:\n"
        "    for step in job.steps(6):\n"
        "        try: signal.raise_signal(signal.SIGTERM)\n"
        "        except Exception: print('swallowed')\n"
        "except Exception: print('swallowed')\n"
        "finally: print('cleaned up')"
    )
    assert ended.output == "cleaned up\n"
    assert ended.status == PAUSED
    assert ended.kinds[-1] == "paused", "nothing is said after a pause"


def test_an_interrupt_is_the_supervisors_to_understand(start: Start) -> None:
    # A terminal sends it to the whole group; only the supervisor may act on it.
    worker = start(ENDLESS)
    worker.await_event("progress")
    worker.process.send_signal(signal.SIGINT)
    worker.terminate()
    ended = worker.ended()
    assert (ended.kinds[-1], ended.status) == ("paused", PAUSED)


def test_a_forked_process_can_be_ended_by_sigterm(run: Run) -> None:
    # As data loaders do with theirs.
    ended = run(
        "import os, signal\n"
        "for step in job.steps(1):\n"
        "    if (child := os.fork()) == 0:\n"
        "        while True: signal.pause()\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    print(os.WTERMSIG(os.waitpid(child, 0)[1]))"
    )
    assert ended.output == "15\n"
    assert ended.one("finish")["step"] == 1
