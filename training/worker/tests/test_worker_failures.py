"""What the supervisor and the user are told when the user's code raises."""

from __future__ import annotations

import json
from collections.abc import Callable

import worker_rig

Run = Callable[..., worker_rig.Ended]

# Of training/attempt.go: longer lines end its reading of the events.
LONGEST_EVENT = 1 << 20


def test_an_error_is_told_with_type_message_and_traceback(run: Run) -> None:
    ended = run("def train():\n    raise ValueError('the width must be even')\ntrain()")
    failed = ended.one("failed")
    assert failed["kind"] == "user"
    assert failed["type"] == "ValueError"
    assert failed["message"] == "the width must be even"
    assert failed["traceback"].startswith("Traceback (most recent call last):")
    assert "line 2, in train" in failed["traceback"]
    assert "raise ValueError('the width must be even')" in failed["traceback"]
    assert ended.status == 1
    assert ended.kinds == ["hello", "failed"], "a failed model is not finished"


def test_the_traceback_begins_in_the_users_code(run: Run) -> None:
    ended = run("1 / 0", shared=("import math",))
    failed = ended.one("failed")
    assert "outlast" not in failed["traceback"]
    assert failed["traceback"].splitlines()[1].endswith('code.py", line 1, in <module>')


def test_an_error_of_a_shared_cell_is_told_as_one(run: Run) -> None:
    told = " (in cell 2 of 2 of %%shared, which every worker runs first; '%%shared --reset' forgets them all)"
    for broken, ends in (
        ("import nonsense_that_is_not_there", "No module named 'nonsense_that_is_not_there'"),
        ("def f(:\n    pass", "invalid syntax"),
    ):
        ended = run("print(1)", shared=("import math", broken))
        failed = ended.one("failed")
        assert failed["message"].startswith(ends)
        assert failed["message"].endswith(told)
        assert failed["traceback"].endswith(told + "\n")
        assert ended.output == failed["traceback"]
    ended = run("shared()", shared=("import math", "def shared(): 1 / 0"))
    assert ended.one("failed")["message"] == "division by zero", "the cell below %%train has called it"


def test_the_user_finds_the_same_traceback_in_the_log(run: Run) -> None:
    ended = run("print('before')\nundefined")
    assert ended.output == "before\n" + ended.one("failed")["traceback"]


def test_the_causes_of_an_error_are_told_too(run: Run) -> None:
    source = "try: 1 / 0\nexcept ZeroDivisionError as e: raise RuntimeError('no data') from e"
    failed = run(source).one("failed")
    assert failed["type"] == "RuntimeError"
    assert "ZeroDivisionError: division by zero" in failed["traceback"]


def test_a_step_that_raises_is_not_done(run: Run) -> None:
    ended = run("for step in job.steps(5):\n    job.log(loss=step)\n    if step == 2: raise ValueError('no')")
    assert ended.metrics == [(0, {"loss": 0}), (1, {"loss": 1})]
    assert max(e["step"] for e in ended.all("progress")) <= 2


def test_a_step_that_was_given_up_but_not_the_program_counts_as_done(run: Run) -> None:
    ended = run(
        "try:\n"
        "    for step in job.steps(5):\n"
        "        if step == 2: raise StopIteration\n"
        "except StopIteration: pass\n"
        "job.finish()"
    )
    assert ended.one("finish")["step"] == 3


def test_endless_messages_do_not_burst_the_protocol(run: Run) -> None:
    ended = run("raise ValueError('\\U0001f40d' * 2_000_000)")
    failed = ended.one("failed")
    assert len(json.dumps(failed)) < LONGEST_EVENT
    assert failed["message"].startswith("\U0001f40d")


def test_the_end_of_a_long_traceback_is_what_is_kept(run: Run) -> None:
    ended = run("raise ValueError('x' * 50_000 + ' and this is why')")
    assert ended.one("failed")["traceback"].endswith(" and this is why\n")


def test_an_error_that_cannot_be_told_is_told(run: Run) -> None:
    ended = run("class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd")
    assert ended.one("failed")["type"] == "Odd"
    assert ended.status == 1


def test_messages_in_any_script_arrive(run: Run) -> None:
    ended = run("raise ValueError('größer als \\u4e00 \\ud800')")
    assert ended.one("failed")["message"] == "größer als \u4e00 \ud800"


def test_running_out_of_recursion_or_memory_is_an_error_like_any_other(run: Run) -> None:
    assert run("def f(): f()\nf()").one("failed")["type"] == "RecursionError"
    assert run("raise MemoryError").one("failed")["type"] == "MemoryError"


def test_an_asked_for_interrupt_is_the_codes_own(run: Run) -> None:
    # Ctrl-C does not reach a worker; who raises this means it.
    assert run("raise KeyboardInterrupt").one("failed")["type"] == "KeyboardInterrupt"
