"""What the wrapped kernel can do works through ours as without it: each test runs on both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_rig import PATIENCE, Kernel


@pytest.fixture(scope="module", params=["outlast", "python3"])
def kernel(
    request: pytest.FixtureRequest, kernel_spec: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kernel]:
    kernel = Kernel(kernel_spec, request.param, tmp_path_factory.mktemp("notebook"))
    yield kernel
    kernel.close()


def test_execute_honours_its_options(kernel: Kernel) -> None:
    count = kernel.run("x = 1").count
    assert kernel.run("y = 2", silent=True).types == []
    assert kernel.run("z = 3", store_history=False).count == count
    result = kernel.run("x", user_expressions={"sum": "x + y + z", "bad": "nothing"})
    assert result.count == count + 1
    assert result.content["user_expressions"]["sum"]["data"]["text/plain"] == "6"
    assert result.content["user_expressions"]["bad"]["status"] == "error"
    assert result.data() == ["1"]


def test_an_error_aborts_what_is_queued_unless_it_is_not_to(kernel: Kernel) -> None:
    for stop, later in ((True, "aborted"), (False, "ok")):
        first = kernel.execute("import time; time.sleep(0.5); 1 / 0", stop_on_error=stop)
        second = kernel.execute("2")
        failed = kernel.finish(first)
        assert failed.content["ename"] == "ZeroDivisionError"
        assert "error" in failed.types
        assert kernel.finish(second).status == later
        kernel.run("pass")


def test_displays_payloads_and_results(kernel: Kernel) -> None:
    result = kernel.run("""
from IPython.display import display, clear_output, HTML
handle = display(HTML("<b>1</b>"), display_id="it")
handle.update(HTML("<b>2</b>"))
clear_output(wait=True)
get_ipython().set_next_input("next")
get_ipython().payload_manager.write_payload({"source": "page", "data": {"text/plain": "paged"}, "start": 0})
[1, 2]
""")
    assert result.types[1:] == ["display_data", "update_display_data", "clear_output", "execute_result"]
    assert result.data("text/html") == ["<b>1</b>", "<b>2</b>"]
    assert result.outputs[2]["content"]["transient"] == {"display_id": "it"}
    assert {p["source"] for p in result.content["payload"]} == {"set_next_input", "page"}


def test_it_completes_inspects_and_remembers(kernel: Kernel) -> None:
    kernel.run("größe = {'schlüssel': 1}")
    completed = kernel.ask("complete_request", {"code": "größ", "cursor_pos": 4})
    assert "größe" in completed.content["matches"]
    inspected = kernel.ask("inspect_request", {"code": "print", "cursor_pos": 5, "detail_level": 0})
    assert inspected.content["found"]
    assert kernel.ask("is_complete_request", {"code": "for x in y:"}).status == "incomplete"
    history = kernel.ask(
        "history_request", {"hist_access_type": "tail", "n": 1, "output": False, "raw": True, "unique": False}
    )
    assert history.content["history"][0][2] == "größe = {'schlüssel': 1}"


COMM = """
def opened(comm, message):
    comm.on_msg(lambda m: comm.send({"back": m["content"]["data"]}, buffers=[bytes(b)[::-1] for b in m["buffers"]]))
    comm.send({"hello": message["content"]["data"]}, buffers=message["buffers"])
get_ipython().kernel.comm_manager.register_target("mirror", opened)
"""


def test_comms_carry_buffers_both_ways(kernel: Kernel) -> None:
    kernel.run(COMM)
    buffers = [b"\x00\xff<IDS|MSG>", b"", bytes(range(256)) * 4096]
    opening = kernel.send("comm_open", {"comm_id": "c1", "target_name": "mirror", "data": {"n": 1}}, buffers=buffers)
    (hello,) = [m for m in kernel.publications(opening) if m["msg_type"] == "comm_msg"]
    assert [bytes(b) for b in hello["buffers"]] == buffers
    assert hello["content"]["data"] == {"hello": {"n": 1}}
    sending = kernel.send("comm_msg", {"comm_id": "c1", "data": 5}, buffers=buffers)
    (back,) = [m for m in kernel.publications(sending) if m["msg_type"] == "comm_msg"]
    assert [bytes(b) for b in back["buffers"]] == [b[::-1] for b in buffers]
    assert "c1" in kernel.ask("comm_info_request", {}).content["comms"]
    kernel.publications(kernel.send("comm_close", {"comm_id": "c1", "data": {}}))
    assert "c1" not in kernel.ask("comm_info_request", {}).content["comms"]


def test_widgets_follow_the_front_end(kernel: Kernel) -> None:
    result = kernel.run("""
import ipywidgets
slider = ipywidgets.IntSlider(value=3)
slider.observe(lambda change: print("now", change["new"]), "value")
slider
""")
    (view,) = result.data("application/vnd.jupyter.widget-view+json")
    model = view["model_id"]
    assert model in {m["content"]["comm_id"] for m in result.of("comm_open")}
    moving = kernel.send(
        "comm_msg", {"comm_id": model, "data": {"method": "update", "state": {"value": 8}, "buffer_paths": []}}
    )
    printed = "".join(m["content"]["text"] for m in kernel.publications(moving) if m["msg_type"] == "stream")
    assert printed == "now 8\n"
    assert kernel.run("slider.value").data() == ["8"]


def test_progress_bars(kernel: Kernel) -> None:
    result = kernel.run("from tqdm import tqdm\nfor _ in tqdm(range(3), mininterval=0): pass")
    assert "3/3" in result.text
    notebook = kernel.run("from tqdm.notebook import tqdm\nfor _ in tqdm(range(3), mininterval=0): pass")
    assert notebook.data("application/vnd.jupyter.widget-view+json")
    assert notebook.of("comm_msg")


def test_figures_are_shown_inline(kernel: Kernel) -> None:
    result = kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()")
    (png,) = result.data("image/png")
    assert png.startswith("iVBOR")


def test_it_asks_for_input_and_passwords(kernel: Kernel) -> None:
    asking = kernel.execute("import getpass\nprint(input('Name: '), getpass.getpass('Word: '))", allow_stdin=True)
    assert kernel.answer("Zoë") == {"prompt": "Name: ", "password": False}
    assert kernel.answer("secret") == {"prompt": "Word: ", "password": True}
    assert "Zoë secret" in kernel.finish(asking).text
    refused = kernel.run("input()", allow_stdin=False)
    assert refused.content["ename"] == "StdinNotImplementedError"


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)", "input()"])
def test_an_interrupt_ends_the_cell_and_keeps_the_variables(kernel: Kernel, code: str) -> None:
    kernel.run("kept = 1")
    running = kernel.execute("print('going', flush=True)\n" + code, allow_stdin=True)
    kernel.await_output(running, "going")
    if code == "input()":
        kernel.client.get_stdin_msg(timeout=PATIENCE)
    kernel.manager.interrupt_kernel()
    assert kernel.finish(running).content["ename"] == "KeyboardInterrupt"
    assert kernel.run("kept").data() == ["1"]


def debug(kernel: Kernel, command: str, **arguments: object) -> dict:
    kernel.seq = getattr(kernel, "seq", 0) + 1
    content = {"type": "request", "seq": kernel.seq, "command": command, "arguments": arguments}
    return kernel.ask("debug_request", content, "control").content


def test_the_debugger_stops_at_a_line(kernel: Kernel) -> None:
    features = kernel.ask("kernel_info_request", {}, "control").content["supported_features"]
    assert set(features) == {"debugger", "kernel subshells"}
    assert debug(kernel, "initialize", clientID="test", adapterID="", pathFormat="path")["success"]
    attach = {"type": "request", "seq": 90, "command": "attach", "arguments": {}}
    attaching = kernel.send("debug_request", attach, "control")
    assert debug(kernel, "debugInfo")["body"]["isStarted"]
    code = "a = 1\nb = 2\nprint(a + b)"
    path = debug(kernel, "dumpCell", code=code)["body"]["sourcePath"]
    assert debug(kernel, "setBreakpoints", source={"path": path}, breakpoints=[{"line": 2}], sourceModified=False)[
        "success"
    ]
    assert debug(kernel, "configurationDone")["success"]
    running = kernel.execute(code)
    thread = stopped(kernel)
    frames = debug(kernel, "stackTrace", threadId=thread)["body"]["stackFrames"]
    assert frames[0]["line"] == 2
    assert debug(kernel, "continue", threadId=thread)["success"]
    reply = kernel.client.get_shell_msg(timeout=PATIENCE)  # its output may have gone by while we asked
    assert (reply["parent_header"]["msg_id"], reply["content"]["status"]) == (running, "ok")
    assert kernel.run("a + b").data() == ["3"]
    assert debug(kernel, "disconnect", restart=False, terminateDebuggee=False)["success"]
    assert attaching


def stopped(kernel: Kernel) -> int:
    """Waits for the debugger's stop; returns the thread."""
    while True:
        message = kernel.client.get_iopub_msg(timeout=PATIENCE)
        if message["msg_type"] == "debug_event" and message["content"]["event"] == "stopped":
            return message["content"]["body"]["threadId"]


def test_subshells_work_beside_the_main_one(kernel: Kernel) -> None:
    sub = kernel.ask("create_subshell_request", {}, "control").content["subshell_id"]
    assert kernel.ask("list_subshell_request", {}, "control").content["subshell_id"] == [sub]
    kernel.run("import threading; gate = threading.Event()")
    waiting = kernel.execute("gate.wait(60)")
    # IPython gives both cells the same number, and its history complains of that in the output of one of them.
    code = {"code": "gate.set(); print('beside')", "silent": False, "store_history": False}
    beside = kernel.ask("execute_request", code, header={"subshell_id": sub})
    assert beside.status == "ok"
    assert [m["content"]["text"] for m in beside.of("stream")] == ["beside\n"] or beside.text == "beside\n"
    del waiting
    assert kernel.ask("delete_subshell_request", {"subshell_id": sub}, "control").status == "ok"
    kernel.run("pass")


def test_a_burst_of_cells_keeps_its_order(kernel: Kernel) -> None:
    ids = [kernel.execute(f"print({i})") for i in range(30)]
    results = []
    for msg_id in ids:
        outputs = kernel.publications(msg_id)
        results.append("".join(m["content"]["text"] for m in outputs if m["msg_type"] == "stream"))
    assert results == [f"{i}\n" for i in range(30)]
    replies = [kernel.client.get_shell_msg(timeout=PATIENCE) for _ in ids]
    assert [r["parent_header"]["msg_id"] for r in replies] == ids


def test_two_front_ends_get_their_own_answers_and_all_output(kernel: Kernel) -> None:
    other = kernel.connect()
    try:
        theirs = other.execute("print('from there')")
        reply = other.get_shell_msg(timeout=PATIENCE)
        assert reply["parent_header"]["msg_id"] == theirs
        heard = [m for m in kernel.publications(theirs) if m["msg_type"] == "stream"]
        assert heard[0]["content"]["text"] == "from there\n"
    finally:
        other.stop_channels()


def test_large_output_arrives_complete(kernel: Kernel) -> None:
    result = kernel.run("for i in range(50_000): print(i, 'x' * 100)")
    assert result.text.count("\n") == 50_000
    assert result.text.endswith("49999 " + "x" * 100 + "\n")


def test_it_restarts_with_the_same_connection(kernel: Kernel) -> None:
    kernel.run("gone = 1")
    before = json.loads(Path(kernel.manager.connection_file).read_text())
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=PATIENCE)
    assert json.loads(Path(kernel.manager.connection_file).read_text()) == before
    result = kernel.run("gone")
    assert result.content["ename"] == "NameError"
    assert result.count == 1
