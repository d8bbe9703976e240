"""How a worker runs the user's code: cells, scripts, shared cells, other processes."""

from __future__ import annotations

from collections.abc import Callable

import worker_rig

Run = Callable[..., worker_rig.Ended]


def test_a_cell_finds_job_and_what_the_plan_says_of_it(run: Run) -> None:
    ended = run(
        "import os\n"
        "print(job.run, job.name, job.params['width'], job.seed, job.attempt)\n"
        "print(job.batch_size, job.grad_accum, job.effective_batch, job.precision)\n"
        "print(job.lora_rank, job.device, job.grad_checkpointing, job.memory_fraction)\n"
        "print(job.dir.is_dir(), os.path.basename(job.dir))",
        params={"width": 32},
        memory_fraction=0.5,
    )
    assert ended.output.splitlines() == [
        "tests model 32 7 1",
        "8 2 16 fp32",
        "16 cpu False 0.5",
        "True work",
    ]


def test_shared_cells_run_first_and_in_the_same_namespace(run: Run) -> None:
    shared = ("base = 40\nname = job.name", "def answer(): return base + 2")
    ended = run("print(name, answer())", shared=shared)
    assert ended.output == "model 42\n"


def test_a_script_asks_for_its_job_and_is_the_main_program(run: Run) -> None:
    ended = run(
        "import sys\n"
        "import outlast\n"
        "if __name__ == '__main__':\n"
        "    job = outlast.job()\n"
        "    print(job.name, sys.argv == [__file__], 'job' in dir(outlast))\n"
        "    for step in job.steps(2): pass",
        kind="script",
    )
    assert ended.output == "model True True\n"
    assert ended.one("finish")["step"] == 2


def test_every_call_gives_the_same_job(run: Run) -> None:
    assert run("import outlast\nprint(outlast.job() is job)").output == "True\n"


def test_a_script_imports_what_lies_beside_it(run: Run) -> None:
    ended = run("import shared_1\nprint(shared_1.here)", kind="script", shared=("here = 'yes'",))
    assert ended.output == "yes\n"


def test_classes_of_the_code_can_be_pickled(run: Run) -> None:
    ended = run("import pickle\nclass Sample: pass\nprint(type(pickle.loads(pickle.dumps(Sample()))) is Sample)")
    assert ended.output == "True\n"


def test_output_appears_line_by_line(start: Callable[..., worker_rig.Worker]) -> None:
    ended = start("import os\nprint('the last words')\nos._exit(9)").ended()
    assert (ended.output, ended.status) == ("the last words\n", 9)


SPAWN = """
import multiprocessing
import outlast

job = outlast.job()

def child(answers):
    answers.send((job.name, job.params))
    answers.recv()  # for ever

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for step in job.steps(1):
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs,))
        process.start()
        print(ours.recv())
        process.terminate()
        process.join()
        print("ended by signal", -process.exitcode)
"""


def test_a_spawned_process_knows_the_job_but_does_not_speak_for_it(run: Run) -> None:
    # It runs the script's top level again, and asks for the job there.
    ended = run(SPAWN, kind="script", params={"width": 32})
    assert ended.output.splitlines() == ["('model', {'width': 32})", "ended by signal 15"]
    assert ended.kinds == ["hello", "restored", "checkpoint", "finish"]


def test_a_program_of_its_own_may_ask_for_the_job_too(run: Run) -> None:
    ended = run(
        "import subprocess, sys\n"
        "code = '''\n"
        "import outlast\n"
        "job = outlast.job()\n"
        "print(job.name)\n"
        "for step in job.steps(1): job.save()\n"
        "job.finish()\n"
        "'''\n"
        "subprocess.run([sys.executable, '-c', code], check=True)"
    )
    assert ended.output == "model\n"
    assert ended.kinds == ["hello", "restored", "checkpoint", "finish"]


def test_what_seeds_nothing_draws_the_same_in_every_attempt(run: Run) -> None:
    source = "import random\nimport numpy\nprint(random.random(), numpy.random.rand())"
    first, second = run(source), run(source)
    assert first.output == second.output
    assert run(source, seed=8).output != first.output
