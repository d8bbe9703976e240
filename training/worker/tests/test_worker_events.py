"""What a worker tells its supervisor, over the descriptor that is only for that."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import worker_rig
from outlast._events import Events

Run = Callable[..., worker_rig.Ended]
Start = Callable[..., worker_rig.Worker]


def test_hello_is_the_first_line_even_of_code_that_cannot_be_compiled(start: Start) -> None:
    worker = start("this is no Python")
    pid = worker.process.pid
    ended = worker.ended()
    hello = ended.events[0]
    assert (hello["event"], hello["protocol"], hello["pid"]) == ("hello", 1, pid)
    assert ended.kinds == ["hello", "failed"]
    assert ended.one("failed")["type"] == "SyntaxError"


def test_a_whole_run_tells_its_story_in_order(run: Run) -> None:
    ended = run("for step in job.steps(2): job.log(loss=step)\njob.finish(accuracy=0.5)")
    told = ["hello", "restored", "metrics", "metrics", "checkpoint", "finish"]
    assert ended.kinds == told, str(ended)
    assert ended.status == 0
    assert ended.one("restored")["step"] == 0
    assert ended.one("finish")["metrics"] == {"loss": 1, "accuracy": 0.5}
    assert ended.one("finish")["step"] == ended.one("checkpoint")["step"] == 2
    assert ended.one("checkpoint")["reason"] == "final"


def test_it_tells_the_versions_of_the_libraries_that_the_code_has_imported(run: Run) -> None:
    import numpy

    ended = run("import numpy\nfor step in job.steps(1): pass")
    assert ended.one("restored")["versions"] == {"numpy": numpy.__version__}
    assert run("for step in job.steps(1): pass").one("restored")["versions"] == {}


def test_every_step_has_one_entry_of_metrics_under_its_own_number(run: Run) -> None:
    ended = run(
        "for step in job.steps(4):\n"
        "    job.log(loss=1 / (step + 1), kind='early')\n"
        "    job.log(kind='late')\n"
        "job.finish(accuracy=1)"
    )
    assert ended.metrics == [(s, {"loss": 1 / (s + 1), "kind": "late"}) for s in range(4)]


@pytest.mark.parametrize("name", ["step", "time"])
def test_what_each_line_says_itself_cannot_be_logged(name: str, run: Run) -> None:
    failed = run(f"for step in job.steps(1): job.log({name}=7)").one("failed")
    assert failed["type"] == "ValueError"
    assert f"job.log({name}=...)" in failed["message"]
    assert f"such as logged_{name}" in failed["message"]


def test_a_step_without_metrics_has_no_entry(run: Run) -> None:
    ended = run("for step in job.steps(6):\n    if step % 3 == 0: job.log(loss=step)")
    assert ended.metrics == [(0, {"loss": 0}), (3, {"loss": 3})]


def test_numbers_that_json_lacks_travel_as_text(run: Run) -> None:
    ended = run("for step in job.steps(1): job.log(a=float('nan'), b=float('inf'), c=-1e999)")
    assert ended.metrics == [(0, {"a": "nan", "b": "inf", "c": "-inf"})]
    assert ended.one("finish")["metrics"] == {"a": "nan", "b": "inf", "c": "-inf"}


def test_floats_keep_every_bit(run: Run) -> None:
    ended = run("for step in job.steps(1): job.log(x=0.1 + 0.2, pi=__import__('math').pi)")
    assert ended.metrics == [(0, {"x": 0.1 + 0.2, "pi": math.pi})]


def test_prints_are_never_taken_for_events(run: Run) -> None:
    ended = run('print(\'{"event": "finish", "step": 9}\')\nfor step in job.steps(1): pass')
    assert ended.one("finish")["step"] == 1
    assert '{"event": "finish", "step": 9}' in ended.output


def test_progress_says_the_beginning_and_the_end_and_is_not_too_much(run: Run) -> None:
    told = run("for step in job.steps(2000): pass").all("progress")
    assert (told[0]["step"], told[-1]["step"]) == (0, 2000)
    assert {e["total"] for e in told} == {2000}
    assert len(told) < 1000, "far fewer than steps"


def test_checkpoints_come_every_so_many_steps(run: Run) -> None:
    ended = run("for step in job.steps(7): pass", checkpoint_every={"steps": 3})
    told = [(e["step"], e["reason"]) for e in ended.all("checkpoint")]
    assert told == [(3, "due"), (6, "due"), (7, "final")]


def test_checkpoints_come_when_the_time_is_up(run: Run) -> None:
    ended = run("for step in job.steps(3): pass", checkpoint_every={"seconds": 1e-9})
    assert [e["step"] for e in ended.all("checkpoint")] == [1, 2, 3], "the end saves the last one"


def test_save_within_a_loop_takes_effect_at_the_end_of_the_step(run: Run) -> None:
    ended = run(
        "seen = []\n"
        "job.track(seen=seen)\n"
        "for step in job.steps(3):\n"
        "    if step == 1: job.save()\n"
        "    seen.append(step)"
    )
    asked = ended.all("checkpoint")[0]
    assert (asked["step"], asked["reason"]) == (2, "asked")
    assert json.loads((Path(asked["path"]) / "seen.json").read_text()) == [0, 1]


def test_metrics_of_its_steps_come_before_a_checkpoint(run: Run) -> None:
    source = "for step in job.steps(4): job.log(loss=step)"
    ended = run(source, checkpoint_every={"steps": 2})
    seen = [e["step"] for e in ended.events if e["event"] in ("metrics", "checkpoint")]
    assert seen == [0, 1, 2, 2, 3, 4]


def test_an_announced_checkpoint_is_complete_and_below_staging(start: Start, tmp_path: Path) -> None:
    source = "job.track(a=[1], b={'k': 2})\nfor step in job.steps(1): pass"
    folder = Path(start(source).await_event("checkpoint")["path"])
    assert folder.parent == tmp_path / "attempt-1" / "staging"
    state = json.loads((folder / "outlast.json").read_text())
    assert state["files"] == {"a": "a.json", "b": "b.json"}
    assert sorted(p.name for p in folder.iterdir()) == ["a.json", "b.json", "outlast.json"]


def test_every_checkpoint_has_a_folder_of_its_own(run: Run) -> None:
    ended = run("for step in job.steps(3): job.save()\njob.save()\njob.finish()")
    paths = [e["path"] for e in ended.all("checkpoint")]
    assert len(set(paths)) == len(paths) == 4


def test_a_program_is_not_resumed_behind_its_last_step(run: Run) -> None:
    """It may want what its loop has left behind."""
    ended = run("for step in job.steps(6):\n    if step % 3 == 2: job.save()\njob.finish(last=step)")
    assert [(e["step"], e["reason"]) for e in ended.all("checkpoint")] == [(3, "asked"), (6, "final")]


def test_a_step_left_by_break_counts_as_done(run: Run) -> None:
    ended = run(
        "for step in job.steps(10):\n"
        "    job.log(loss=step)\n"
        "    if step == 3: break\n"
        "print('steps:', job.step)\n"
        "job.finish()"
    )
    assert "steps: 4" in ended.output
    assert ended.one("finish")["step"] == ended.one("checkpoint")["step"] == 4
    assert [step for step, _ in ended.metrics] == [0, 1, 2, 3]
    assert ended.all("progress")[-1]["step"] == 4


def test_code_that_does_not_call_finish_is_finished_at_its_end(run: Run) -> None:
    ended = run("for step in job.steps(2): job.log(loss=step)")
    assert ended.one("finish")["metrics"] == {"loss": 1}
    assert ended.status == 0


def test_exit_zero_is_an_end_like_any_other(run: Run) -> None:
    ended = run("import sys\nfor step in job.steps(2): pass\nsys.exit(0)")
    assert (ended.one("finish")["step"], ended.status) == (2, 0)


def test_another_exit_status_is_no_finish(run: Run) -> None:
    ended = run("import sys\nfor step in job.steps(2): pass\nsys.exit(3)")
    assert ended.kinds == ["hello", "restored"]
    assert ended.status == 3


def test_a_worker_without_supervisor_ends(start: Start) -> None:
    # A thread of ours reads the pipe, so the worker is given one that has no reader.
    worker = start(
        "import os\n"
        "reader, writer = os.pipe()\n"
        "os.close(reader)\n"
        "os.dup2(writer, job._events._fd)\n"
        "for step in job.steps(10**12): job.log(loss=step)"
    )
    assert worker.ended().status == 74


def test_the_descriptor_is_not_handed_on_to_other_programs(run: Run) -> None:
    # Else somebody else's process would keep the supervisor waiting for the end.
    ended = run(
        "import os, subprocess, sys\n"
        "fd = job._events._fd\n"
        "code = f'import os; os.fstat({fd})'\n"
        "print(subprocess.run([sys.executable, '-c', code], close_fds=False).returncode)\n"
        "print('OUTLAST_EVENTS_FD' in os.environ)"
    )
    assert ended.output.splitlines()[-2:] == ["1", "False"]


def test_a_forked_child_is_silent(run: Run) -> None:
    ended = run(
        "import os\n"
        "for step in job.steps(1):\n"
        "    if (child := os.fork()) == 0:\n"
        "        job._events.send('progress', step=99, total=99)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)"
    )
    assert 99 not in [e["step"] for e in ended.all("progress")]


def test_events_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    with (tmp_path / "events").open("wb") as file:
        events = Events(file.fileno())

        def send(thread: int) -> None:
            for step in range(200):
                events.send("progress", step=step, total=thread)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert sorted((e["total"], e["step"]) for e in lines) == [
        (thread, step) for thread in range(4) for step in range(200)
    ]
