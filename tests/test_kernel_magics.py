"""Magics among Python: numbers, history, Tab, help, and every place where IPython takes one."""

from __future__ import annotations

import re
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
    typed = ["40 + 2", *codes]
    assert kernel.run(f"print(In[{first}:{first + 5}])").text == f"{typed}\n"
    assert kernel.run(f"Out[{first}], Out[{first + 3}], shared, mixed").data() == ["(42, 2, 1, 2)"]
    history = kernel.run(f"%history {first}-{first + 4}").text
    assert history.splitlines() == "\n".join(["40 + 2", *codes]).splitlines()


def test_a_cell_that_fails_counts_too(kernel: Kernel) -> None:
    count = kernel.run("pass").count
    failed = kernel.run("%status no-such-run")
    assert failed.status == "error"
    assert kernel.run("pass").count == count + 2


@pytest.mark.parametrize(
    "last", ["print(In[-1])", "print(_ih[-1])", "print(get_ipython().history_manager.input_hist_raw[-1])"]
)
def test_a_cell_finds_itself_in_the_history_as_it_was_typed(kernel: Kernel, last: str) -> None:
    for code in (f"# a comment\n%outlast --help\n{last}", f"%%shared\n\n{last}\n"):
        assert kernel.run(code).text.endswith(code.rstrip("\n") + "\n")
    kept = kernel.run("hm = get_ipython().history_manager; hm.writeout_cache(); print(list(hm.get_tail(1, raw=False)))")
    assert repr(code.rstrip("\n")) in kept.text, "in the next session's history, too"


@pytest.mark.parametrize(
    "code",
    [
        "%outlast --help\n1 / 0",
        "# a comment\n%outlast --help\n%gpu_config\n\n1 / 0",
        "%outlast --help\n  x = 1\n  1 / 0",
        "%outlast --help\nimport asyncio\nawait asyncio.sleep(0)\n1 / 0",
        "%%shared\nx = 1\n1 / 0",
        "\n%outlast --help\nif True:\n    %gpu_config\n1 / 0",
    ],
)
def test_a_traceback_counts_the_lines_of_magics(kernel: Kernel, code: str) -> None:
    failed = kernel.run(code)
    said = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(failed.content["traceback"]))
    line = code.count("\n") + 1
    assert re.search(rf"Cell In ?\[{failed.count}\], line {line}\n", said), said
    assert f"----> {line} 1 / 0" in said


def test_a_cell_magic_of_ipythons_may_follow_ours(kernel: Kernel) -> None:
    assert kernel.run("%outlast --help\n%%capture held\nprint('kept')").types == ["stream", "execute_input"]
    assert kernel.run("held.stdout").data() == ["'kept\\n'"]


FAILING = [
    "%status no-such-run\nprint(1)",
    "%gpu_config --no-such-flag\n2",
    "%drive auth --client /no",
    "%drive mount",
    "%outlast\n%logs none\n3",
]


def test_a_cell_whose_leading_magic_fails_has_its_number_and_its_place_in_the_history(kernel: Kernel) -> None:
    count = kernel.run("pass").count
    for i, code in enumerate(FAILING, count + 1):
        failed = kernel.run(code)
        assert (failed.status, failed.count) == ("error", i), code
        assert failed.types[-2:] == ["execute_input", "error"]
        (shown,) = failed.of("execute_input")
        assert shown["content"] == {"code": code, "execution_count": i}
    last = count + len(FAILING)
    assert kernel.run("1 + 1").count == last + 1
    assert kernel.run(f"print(In[{count + 1}:{last + 1}])").text == f"{FAILING}\n"
    assert kernel.run(f"%history {count + 1}-{last}").text.splitlines() == "\n".join(FAILING).splitlines()


def test_a_failing_cell_that_is_not_to_be_kept_has_no_number(kernel: Kernel) -> None:
    count = kernel.run("pass").count
    for options in ({"store_history": False}, {"silent": True}):
        assert kernel.run(FAILING[0], **options).status == "error"
    assert kernel.run("len(In)").count == count + 1


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


@pytest.mark.parametrize(
    ("assigned", "asks"),
    [
        ("gpu = %gpu_config", ["gpu", "display(gpu)", "gpu"]),
        ("gpu = get_ipython().run_line_magic('gpu_config', '')", ["gpu"]),
        ("1\n%gpu_config", ["_", "display(_)"]),
        ("%time %gpu_config", ["_"]),
    ],
)
def test_the_value_of_a_magic_is_shown_like_a_dict_when_it_is_asked_for(
    kernel: Kernel, assigned: str, asks: list[str]
) -> None:
    assert kernel.run(assigned).of("display_data", "execute_result")[0]["msg_type"] == "display_data"
    for ask in asks:
        asked = kernel.run(ask)
        (shown,) = asked.of("display_data", "execute_result")
        assert shown["msg_type"] == ("display_data" if "display(" in ask else "execute_result")
        assert asked.data()[0].startswith("{'devices': ["), ask


def test_a_value_is_shown_in_the_cell_that_assigns_it_if_it_is_asked_for_there(kernel: Kernel) -> None:
    for ask, kind in (("gpu", "execute_result"), ("display(gpu)", "display_data")):
        assert kernel.run(f"gpu = %gpu_config\n{ask}").types == ["execute_input", "display_data", kind]
    assert kernel.run("type(gpu)").data() == ["dict"]


@pytest.mark.parametrize(
    "code",
    [
        "1\n%gpu_config",
        "x = 1\n%time %gpu_config",
        "pass\nif True:\n    %gpu_config",
        "get_ipython().run_line_magic('gpu_config', '')",
        "%%time\n%gpu_config",
        "%look_at_gpus",
    ],
)
@pytest.mark.parametrize("interactivity", ["last_expr", "all"])
def test_what_a_magic_that_stands_by_itself_has_shown_is_not_shown_twice(
    kernel: Kernel, code: str, interactivity: str
) -> None:
    kernel.run(f"%alias_magic look_at_gpus gpu_config\nget_ipython().ast_node_interactivity = {interactivity!r}")
    shown = kernel.run(code).data()
    kernel.run("get_ipython().ast_node_interactivity = 'last_expr'")
    assert [text for text in shown if text != "1"] == [text for text in shown if "Chosen: cpu" in text]
    assert len([text for text in shown if text != "1"]) == 1


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
    assert result.content["ename"] == "KeyboardInterrupt"
    said = "\n".join(result.content["traceback"])
    assert "paused" in said
    assert "To do: %resume slow" in said
    assert rig.status(data, "slow")["state"] == "paused"
    assert kernel.run("1 + 1").data() == ["2"]


@pytest.mark.parametrize("code", [LONG, "if True:\n    " + LONG])
def test_the_end_of_a_kernel_leaves_the_training_of_a_cell_alone(kernel: Kernel, code: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    data = tmp_path / "runs"
    kernel.execute(code.replace("slow.py", f"{tmp_path}/slow.py") + f" --dir {data}")
    rig.wait_for("the first steps", lambda: (data / "slow" / "state.json").exists() and step(data) > 3)
    kernel.manager.restart_kernel()  # which interrupts it first
    before = rig.status(data, "slow")
    rig.wait_for("further steps", lambda: step(data) > before["models"][0]["step"] + 20)
    after = rig.status(data, "slow")
    assert after["state"] == "running"
    assert after["models"][0]["attempts"] == 1
    assert after["supervisor_pid"] == before["supervisor_pid"]
    kernel.client = kernel.connect()
    kernel.run(f"%stop slow --dir {data}")


# What Outlast says all at once while the magic waits for the notebook, too.
ALL_AT_ONCE = """
import json, socket, sys
here, there = socket.socketpair()
lines = [{"op": "stream", "content": {"name": "stdout", "text": f"{n} "}} for n in range(200)]
orders = [*lines[:100], {"op": "eval", "code": "6 * 7"}, *lines[100:], {"op": "end"}]
there.sendall("".join(json.dumps(order) + "\\n" for order in orders).encode())
names = sys.modules["_outlast_bridge"].call.__globals__
usual, names["connect"] = names["connect"], lambda: here
try:
    names["call"]("status", False, "", "")
finally:
    names["connect"] = usual
print([json.loads(line).get("value") for line in there.makefile("r")])
"""


def test_what_came_before_an_answer_is_shown(kernel: Kernel) -> None:
    shown = kernel.run(ALL_AT_ONCE)
    assert shown.text.split("[")[0].split() == [str(n) for n in range(200)]
    assert shown.text.endswith("[None, 42]\n")


def test_a_value_without_a_json_form_is_an_error_of_its_own(kernel: Kernel) -> None:
    kernel.run("grid = [{'name': 'a', 'params': {'lr': float('nan')}}]\nopen('y.py', 'w').close()")
    for code in ("%train x --models grid --script y.py", "if True:\n    %train x --models grid --script y.py"):
        result = kernel.run(code)
        assert result.status == "error"
        assert "not JSON compliant" in result.content["evalue"] + result.text
    assert kernel.run("1 + 1").data() == ["2"]


def test_a_result_is_shown_again_in_the_middle_of_python(kernel: Kernel) -> None:
    shown = kernel.run("6 * 7")
    again = kernel.run(f"if True:\n    %replay {shown.count}")
    assert again.status == "ok", again.content
    assert again.data() == ["42"]


TICKS = """
import threading, time
def ticks():
    while running:
        print("tick", flush=True)
        time.sleep(0.05)
running = True
threading.Thread(target=ticks, daemon=True).start()
"""


@pytest.mark.parametrize("magic", ["%outlast", "%gpu_config"])
def test_what_a_thread_prints_belongs_to_the_latest_cell_also_if_it_is_ours(kernel: Kernel, magic: str) -> None:
    first = kernel.execute(TICKS)
    kernel.await_output(first, "tick")
    ours = kernel.execute(magic)
    kernel.await_output(ours, "tick")
    kernel.run("running = False")


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


@pytest.mark.parametrize(("indent", "behind"), [("", ""), ("", "\nprint('never')"), ("if True:\n    ", "")])
def test_an_interrupt_ends_what_a_magic_evaluates(kernel: Kernel, indent: str, behind: str, tmp_path: Path) -> None:
    mark = tmp_path / "asked"
    (tmp_path / "none.py").touch()
    kernel.run(f"class Slow:\n  def __iter__(self):\n    open({str(mark)!r}, 'w').close(); import time; time.sleep(60)")
    count = kernel.run("slow = Slow()").count
    running = kernel.execute(f"{indent}%train x --script {tmp_path}/none.py --models slow{behind}")
    rig.wait_for("the evaluation", mark.exists)
    began = time.monotonic()
    kernel.manager.interrupt_kernel()
    interrupted = kernel.finish(running)
    assert (interrupted.status, interrupted.count) == ("error", count + 1)
    after = kernel.run("1 + 1")
    assert (after.data(), after.count) == (["2"], count + 2)
    assert time.monotonic() - began < 10
