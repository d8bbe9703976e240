"""Magics among Python: numbers, history, Tab, help, and every place where IPython takes one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
from kernel_rig import Kernel


@pytest.fixture(scope="module")
def kernel(kernel_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    kernel = Kernel(kernel_spec, "outlast", tmp_path_factory.mktemp("notebook"))
    yield kernel
    kernel.close()


def test_numbers_in_out_and_history_hold_both_kinds_of_cells(kernel: Kernel) -> None:
    first = kernel.run("40 + 2").count
    codes = ["%gpu_config", "%%shared\nshared = 1", "1 + 1", "%outlast\nmixed = 2"]
    for i, code in enumerate(codes, first + 1):
        result = kernel.run(code)
        assert (result.status, result.count) == ("ok", i)
        (shown,) = result.of("execute_input")
        assert shown["content"] == {"code": code, "execution_count": i}
    ran = ["40 + 2", "%gpu_config", "shared = 1", "1 + 1", "mixed = 2"]  # as IPython keeps it: without magics
    assert kernel.run(f"[cell.strip() for cell in In[{first}:{first + 5}]]").data() == [repr(ran)]
    assert kernel.run(f"Out[{first}], Out[{first + 3}], shared, mixed").data() == ["(42, 2, 1, 2)"]
    history = kernel.run(f"%history {first}-{first + 4}").text
    assert history.splitlines() == "\n".join(["40 + 2", *codes]).splitlines()


def test_a_cell_that_fails_counts_too(kernel: Kernel) -> None:
    count = kernel.run("pass").count
    failed = kernel.run("%status no-such-run")
    assert failed.status == "error"
    assert kernel.run("pass").count == count + 2


@pytest.mark.parametrize(
    "code",
    [
        "gpu = %gpu_config\nprint(gpu['choice']['device'])",
        "if True:\n    gpu = %gpu_config --batch-size 4\nprint(gpu['choice']['device'])",
        "for size in (4, 8):\n    gpu = %gpu_config --batch-size {size}\nprint(gpu['choice']['device'])",
        "def f(size):\n    gpu = %gpu_config --batch-size $size\n    return gpu\nprint(f(4)['choice']['device'])",
        "gpu = get_ipython().run_line_magic('gpu_config', '')\nprint(gpu['choice']['device'])",
        "%time gpu = get_ipython().run_line_magic('gpu_config', '')\nprint(gpu['choice']['device'])",
    ],
)
def test_magics_work_in_the_middle_of_python(kernel: Kernel, code: str) -> None:
    result = kernel.run(code)
    assert result.status == "ok", result.content
    assert result.text.splitlines()[-1] == "cpu"


def test_output_of_a_magic_has_its_place_in_the_cell(kernel: Kernel) -> None:
    result = kernel.run("print('before', flush=True)\nif True:\n    %gpu_config\nprint('after')")
    assert result.types[1:] == ["stream", "display_data", "stream"]
    assert result.text == "before\nafter\n"


def test_output_of_a_magic_can_be_captured(kernel: Kernel) -> None:
    assert kernel.run("%%capture held\n%outlast\nprint('python')").types == ["execute_input"]
    captured = kernel.run("print(held.stdout)").text
    assert "%keepalive" in captured
    assert "python" in captured


def test_an_error_in_a_magic_is_an_exception_without_our_frames(kernel: Kernel) -> None:
    result = kernel.run("try:\n    %status no-such-run\nexcept Exception as e:\n    print('caught', e)")
    assert "caught" in result.text
    failed = kernel.run("if True:\n    %status no-such-run")
    assert failed.status == "error"
    assert "_outlast_bridge" not in "\n".join(failed.content["traceback"])


def test_tab_help_and_the_list_know_the_magics(kernel: Kernel) -> None:
    for text, match in (("%gpu_c", "%gpu_config"), ("%%tr", "%%train"), ("x = %gpu_", "%gpu_config")):
        completed = kernel.ask("complete_request", {"code": text, "cursor_pos": len(text)})
        assert match in completed.content["matches"], text
    for code in ("%train?", "if True:\n    %train?"):
        payload = kernel.run(code).content["payload"]
        text = payload[0]["data"]["text/plain"] if payload else kernel.run(code).text
        assert "--models" in text, code
    assert kernel.ask("inspect_request", {"code": "%resume", "cursor_pos": 5}).content["found"]
    listed = kernel.run("%lsmagic").data()[0]
    assert "%gpu_config" in listed
    assert "%%train" in listed


def test_user_expressions_are_answered_after_a_magic(kernel: Kernel) -> None:
    result = kernel.run("%outlast", user_expressions={"n": "6 * 7"})
    assert result.content["user_expressions"]["n"]["data"]["text/plain"] == "42"


LONG = "%train slow --models one,two --script slow.py"
SCRIPT = """
import time, outlast
job = outlast.job()
class State:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
job.track(state=State())
for step in job.steps(10_000):
    time.sleep(0.05)
    job.log(loss=1.0 / (step + 1))
job.finish()
"""


@pytest.mark.parametrize("code", [LONG, "if True:\n    " + LONG])
def test_an_interrupt_pauses_the_training_of_a_cell(kernel: Kernel, code: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    kernel.run(f"%cd -q {tmp_path}")
    data = tmp_path / "runs"
    running = kernel.execute(code.replace("slow.py", f"{tmp_path}/slow.py") + f" --dir {data}")
    rig.wait_for("the first steps", lambda: (data / "slow" / "state.json").exists() and step(data) > 3)
    kernel.manager.interrupt_kernel()
    result = kernel.finish(running)
    assert result.status in ("ok", "error")
    rig.wait_for("the pause", lambda: rig.status(data, "slow")["state"] == "paused", 20)
    assert kernel.run("1 + 1").data() == ["2"]


def step(data: Path) -> int:
    return rig.status(data, "slow")["models"][0]["step"]


def test_a_look_at_the_list_does_not_wait_for_a_busy_python(kernel: Kernel) -> None:
    running = kernel.execute("import time; time.sleep(4)")
    kernel.await_output(running)
    time.sleep(1.2)  # so long must it have worked, or the cells may belong together
    looked = kernel.execute("%outlast")
    reply = kernel.client.get_shell_msg(timeout=2.5)
    assert reply["parent_header"]["msg_id"] == looked, "it came before the end of the other"
    kernel.publications(running)
    kernel.client.get_shell_msg(timeout=10)
    assert kernel.run("pass").count == reply["content"]["execution_count"] + 1


@pytest.mark.parametrize("indent", ["", "if True:\n    "])
def test_an_interrupt_ends_what_a_magic_evaluates(kernel: Kernel, indent: str, tmp_path: Path) -> None:
    mark = tmp_path / "asked"
    (tmp_path / "none.py").touch()
    kernel.run(f"class Slow:\n  def __iter__(self):\n    open({str(mark)!r}, 'w').close(); import time; time.sleep(60)")
    kernel.run("slow = Slow()")
    running = kernel.execute(f"{indent}%train x --script {tmp_path}/none.py --models slow")
    rig.wait_for("the evaluation", mark.exists)
    began = time.monotonic()
    kernel.manager.interrupt_kernel()
    assert kernel.finish(running).status == "error"
    assert kernel.run("1 + 1").data() == ["2"]
    assert time.monotonic() - began < 10
