"""A wrapped kernel that is no IPython: what it can do works, and so do cells of ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
from kernel_rig import Kernel

# A kernel of another language, made with pyzmq alone: it gives no identities back, greets nobody, and knows three
# requests. Its socket for control answers nothing.
ECHO = """
import hashlib, hmac, json, sys, uuid, datetime
import zmq

connection = json.load(open(sys.argv[1]))
context = zmq.Context()
session, count = uuid.uuid4().hex, 0


def bind(kind, port):
    socket = context.socket(kind)
    between = "-" if connection["transport"] == "ipc" else ":"
    socket.bind(f"{connection['transport']}://{connection['ip']}{between}{connection[port]}")
    return socket


shell, control = bind(zmq.ROUTER, "shell_port"), bind(zmq.ROUTER, "control_port")
iopub, stdin, beat = bind(zmq.PUB, "iopub_port"), bind(zmq.ROUTER, "stdin_port"), bind(zmq.REP, "hb_port")


def send(socket, route, kind, parent, content):
    header = {"msg_id": uuid.uuid4().hex, "session": session, "username": "echo", "msg_type": kind, "version": "5.0"}
    header["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat()
    parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
    signature = hmac.new(connection["key"].encode(), b"".join(parts), hashlib.sha256).hexdigest().encode()
    socket.send_multipart([*route, b"<IDS|MSG>", signature if connection["key"] else b"", *parts])


INFO = {"status": "ok", "protocol_version": "5.0", "implementation": "echo", "implementation_version": "1",
        "banner": "",
        "language_info": {"name": "echo", "version": "1", "mimetype": "text/plain", "file_extension": ".txt"}}
while True:
    frames = shell.recv_multipart()
    at = frames.index(b"<IDS|MSG>")
    route = frames[:1]  # the others are dropped
    header, _, _, content = map(json.loads, frames[at + 2 : at + 6])
    send(iopub, [b"status"], "status", header, {"execution_state": "busy"})
    kind = header["msg_type"]
    if kind == "kernel_info_request":
        send(shell, route, "kernel_info_reply", header, INFO)
    elif kind == "execute_request":
        count += 1
        send(iopub, [b"execute_input"], "execute_input", header, {"code": content["code"], "execution_count": count})
        send(iopub, [b"stream"], "stream", header, {"name": "stdout", "text": content["code"]})
        send(shell, route, "execute_reply", header, {"status": "ok", "execution_count": count, "user_expressions": {}})
    elif kind == "complete_request":
        reply = {"status": "ok", "matches": ["echo"], "cursor_start": 0, "cursor_end": 0, "metadata": {}}
        send(shell, route, "complete_reply", header, reply)
    send(iopub, [b"status"], "status", header, {"execution_state": "idle"})
"""


@pytest.fixture
def kernel(kernel_spec: Path, tmp_path: Path) -> Iterator[Kernel]:
    specs = tmp_path / "kernels"
    (specs / "echo").mkdir(parents=True)
    script = specs / "echo" / "echo.py"
    script.write_text(ECHO)
    argv = [sys.executable, "{resource_dir}/echo.py", "{connection_file}"]
    (specs / "echo" / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Echo", "language": "echo"}))
    (specs / "wrapped").mkdir()
    argv = [str(rig.BINARY), "kernel", "-f", "{connection_file}", "--child", "echo"]
    (specs / "wrapped" / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Echo (Outlast)", "language": "echo", "interrupt_mode": "message"})
    )
    kernel = Kernel(specs, "wrapped", tmp_path)
    yield kernel
    kernel.close()


def test_its_answers_find_their_way_without_identities(kernel: Kernel) -> None:
    assert kernel.run("héllo").text == "héllo"
    assert kernel.ask("complete_request", {"code": "e", "cursor_pos": 1}).content["matches"] == ["echo"]
    other = kernel.connect()
    try:
        reply = other.execute("from there", reply=True, timeout=30)
        assert reply["content"]["status"] == "ok"
    finally:
        other.stop_channels()


def test_it_is_presented_as_what_it_is(kernel: Kernel) -> None:
    info = kernel.ask("kernel_info_request", {}).content
    assert (info["implementation"], info["language_info"]["name"]) == ("echo", "echo")
    assert kernel.ask("kernel_info_request", {}, "control").content["implementation"] == "echo"


def test_our_cells_work_and_what_needs_ipython_says_so(kernel: Kernel) -> None:
    assert kernel.run("one").count == 1
    ours = kernel.run("%outlast")
    assert (ours.status, ours.count) == ("ok", 2)
    mixed = kernel.run("%outlast\nthree")
    assert mixed.status == "error"
    assert "has no IPython" in mixed.content["evalue"]


def test_requests_that_it_never_answers_hold_up_nothing(kernel: Kernel) -> None:
    for _ in range(5):
        kernel.send("is_complete_request", {"code": "x"})
        kernel.send("debug_request", {}, "control")
    assert kernel.run("still").text == "still"
