"""Colab's front end, played over ipc with an empty key: what google.colab says reaches the page, and comes back.

Colab's machines run an old ipykernel, so Debian's is wrapped too, where there is one. OUTLAST_COLABTOOLS names a
folder with Google's own package, to be used instead of the stand-in in tests/colab.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rig
import zmq
from jupyter_client.session import Session

PACKAGE = Path(os.environ.get("OUTLAST_COLABTOOLS", Path(__file__).parent / "colab"))
DELIMITER = b"<IDS|MSG>"
PATIENCE = 60  # seconds


class Colab:
    """The front end: it runs cells, and answers what their Python asks of the page."""

    def __init__(self, folder: Path, python: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.log = folder / "log"
        spec = folder / "jupyter" / "kernels" / "python3"
        spec.mkdir(parents=True)
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "P", "language": "python"}))
        ports = {f"{name}_port": i for i, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)}
        self.connection = {"transport": "ipc", "ip": str(folder / "k"), "key": "", "signature_scheme": "hmac-sha256"}
        file = folder / "connection.json"
        file.write_text(json.dumps(self.connection | ports))
        env = rig.environment(
            COLAB_RELEASE_TAG="release-colab_1",
            JUPYTER_PATH=str(folder / "jupyter"),
            PYTHONPATH=str(PACKAGE),
            OUTLAST_HOME=str(folder / "runs"),
            XDG_CACHE_HOME=str(folder / "cache"),
            IPYTHONDIR=str(folder / "ipython"),
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([rig.BINARY, "kernel", "-f", file], env=env, cwd=folder, stderr=log)
        self.session = Session(key=b"")
        self.context = zmq.Context()
        self.sockets = {name: self._socket(name, i) for i, name in enumerate(("shell", "iopub", "stdin", "control"), 1)}
        self.poller = zmq.Poller()
        for s in self.sockets.values():
            self.poller.register(s, zmq.POLLIN)
        self.asked: list[tuple[str, dict, list[bytes]]] = []  # type, message, frames before the delimiter
        self.answers: dict[str, Callable[[dict], object]] = {}
        self.wait_ready()

    def _socket(self, name: str, port: int) -> zmq.Socket:
        s = self.context.socket(zmq.SUB if name == "iopub" else zmq.DEALER)
        s.linger = 0
        if name == "iopub":
            s.subscribe(b"")
        else:
            s.identity = self.session.bsession
        s.connect(f"ipc://{self.connection['ip']}-{port}")
        return s

    def wait_ready(self) -> None:
        """Asks until both the kernel and what it publishes can be heard."""
        heard = self.session.send(self.sockets["shell"], "kernel_info_request")["header"]["msg_id"]
        self.until(lambda name, m: name == "shell" and m["parent_header"].get("msg_id") == heard)
        assert self.run("1")[-1]["content"]["status"] == "ok"

    def receive(self) -> Iterator[tuple[str, dict]]:
        """All messages, each with its channel. Questions to the page are answered on the way."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            names = {s: name for name, s in self.sockets.items()}
            for s, _ in self.poller.poll(200):
                frames = s.recv_multipart()
                at = frames.index(DELIMITER)
                message = self.session.deserialize(frames[at + 1 :])
                if message["msg_type"] == "colab_request":
                    self.answer(message, frames[:at])
                yield names[s], message
            assert self.process.poll() is None, self.log.read_text()
        raise AssertionError(f"nothing more is heard:\n{self.log.read_text()}")

    def until(self, over: Callable[[str, dict], bool]) -> list[tuple[str, dict]]:
        heard = []
        for name, message in self.receive():
            heard.append((name, message))
            if over(name, message):
                return heard
        return heard

    def answer(self, message: dict, topic: list[bytes]) -> None:
        """Answers as Colab's page does: an input_reply that nobody asked for, with an object for a value."""
        kind = message["metadata"]["colab_request_type"]
        self.asked.append((kind, message, topic))
        value = {"type": "colab_reply", "colab_msg_id": message["metadata"]["colab_msg_id"]}
        try:
            value["data"] = self.answers[kind](message["content"]["request"])
        except ValueError as error:
            value["error"] = str(error)
        self.session.send(self.sockets["stdin"], "input_reply", content={"value": value})

    def run(self, code: str, **content: object) -> list[dict]:
        """Runs a cell; returns what it published, and its reply as the last."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": True,
        } | content
        request = self.session.msg("execute_request", content=content, metadata={"colab": {"cell_id": "abc"}})
        self.session.send(self.sockets["shell"], request)
        done: set[str] = set()

        def over(name: str, m: dict) -> bool:
            if m["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                if name == "shell":
                    done.add("reply")
                elif m["msg_type"] == "status" and m["content"]["execution_state"] == "idle":
                    done.add("idle")
            return done == {"reply", "idle"}

        mine = [(n, m) for n, m in self.until(over) if m["parent_header"].get("msg_id") == request["header"]["msg_id"]]
        published = [m for n, m in mine if n == "iopub"]
        return [*published, next(m for n, m in mine if n == "shell")]

    def comm(self, target: str) -> Callable[[str, dict], None]:
        """Opens a comm; returns what sends on it."""
        number = self.session.msg_id
        send = functools.partial(self.session.send, self.sockets["shell"])
        send("comm_open", content={"comm_id": number, "target_name": target, "data": {}})
        return lambda kind, data: send(kind, content={"comm_id": number, "data": data})

    def invoke(self, name: str, *args: object, **kwargs: object) -> dict:
        """What google.colab.kernel.invokeFunction sends."""
        call = f"_invoke_function({name!r}, {json.dumps(args)!r}, {json.dumps(kwargs)!r})"
        expression = f"__import__('google.colab.output._js', fromlist=['_']).{call}"
        reply = self.run("", silent=True, store_history=False, user_expressions={"result": expression})[-1]
        return reply["content"]["user_expressions"]["result"]

    def close(self) -> None:
        self.session.send(self.sockets["control"], "shutdown_request", content={"restart": False})
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.context.destroy(linger=0)


def text(messages: list[dict]) -> str:
    """What a cell printed, its errors included."""
    parts = []
    for m in messages:
        content = m["content"]
        parts.append(content.get("text") or content.get("data", {}).get("text/plain", "") or content.get("evalue", ""))
    return "".join(parts)


def old_python() -> str:
    """A Python with an ipykernel of Colab's age."""
    python = "/usr/bin/python3"
    try:
        done = subprocess.run(
            [python, "-c", "import ipykernel; print(ipykernel.__version__)"], capture_output=True, text=True
        )
    except OSError:
        done = None
    if done is None or not done.stdout.startswith("6."):
        pytest.skip(f"{python} has no ipykernel 6; on Debian: apt-get install python3-ipykernel")
    return python


@pytest.fixture(scope="module", params=["old", "new"])
def colab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Colab]:
    python = old_python() if request.param == "old" else sys.executable
    front = Colab(tmp_path_factory.mktemp("colab") / "c", python)
    version = text(front.run("import ipykernel\nprint(ipykernel.__version__)"))
    assert version.startswith("6.") == (request.param == "old"), version
    yield front
    front.close()


@pytest.fixture(autouse=True)
def fresh(colab: Colab) -> None:
    colab.asked.clear()
    colab.answers = {
        "request_auth": lambda request: {"success": True},
        "cell_javascript_eval": lambda request: {"was": request["script"]},
        "GetSecret": lambda request: {"payload": "s3cret"},
    }


def test_a_question_to_the_page_is_answered(colab: Colab) -> None:
    said = text(
        colab.run(
            "from google.colab import _message\n"
            "print(_message.blocking_request('GetSecret', {'key': 'k'}, timeout_sec=30))"
        )
    )
    assert said == "{'payload': 's3cret'}\n"
    ((kind, message, topic),) = colab.asked
    assert (kind, message["content"]) == ("GetSecret", {"request": {"key": "k"}})
    assert topic == [], "it has no topic, and gets none"
    assert set(message["parent_header"]) == {"session"}, "it answers no cell, and still comes through"


def test_an_error_of_the_page_is_raised(colab: Colab) -> None:
    def refuse(_: dict) -> object:
        raise ValueError("the user said no")

    colab.answers["GetSecret"] = refuse
    assert "the user said no" in text(colab.run("_message.blocking_request('GetSecret', timeout_sec=30)"))


def test_a_script_runs_in_the_page_and_its_value_comes_back(colab: Colab) -> None:
    messages = colab.run("from google.colab import output\nprint(output.eval_js('1 + 2'))")
    assert text(messages) == "{'was': '1 + 2'}\n"
    ((_, message, _),) = colab.asked
    assert message["parent_header"]["msg_id"] == messages[-1]["parent_header"]["msg_id"], "the page finds the cell"


def test_a_question_of_pythons_own_is_asked_as_everywhere(colab: Colab) -> None:
    request = colab.session.msg(
        "execute_request", content={"code": "print(input('name? '))", "allow_stdin": True, "silent": False}
    )
    colab.session.send(colab.sockets["shell"], request)
    colab.until(lambda name, m: m["msg_type"] == "input_request")
    colab.session.send(colab.sockets["stdin"], "input_reply", content={"value": "Ada"})
    heard = colab.until(lambda name, m: m["msg_type"] == "execute_reply")
    heard += (
        [] if any(m["msg_type"] == "stream" for _, m in heard) else colab.until(lambda n, m: m["msg_type"] == "stream")
    )
    assert "Ada\n" in [m["content"]["text"] for _, m in heard if m["msg_type"] == "stream"]


def test_the_pages_scripts_call_functions(colab: Colab) -> None:
    colab.run("from google.colab import output\noutput.register_callback('add', lambda a, b=0: {'sum': a + b})")
    assert colab.invoke("add", 2, b=3)["data"]["text/plain"] == "{'sum': 5}"
    assert colab.invoke("missing")["status"] == "error"


def test_consent_and_drive_from_python(colab: Colab) -> None:
    said = text(
        colab.run(
            "from google.colab import auth, drive\n"
            "auth.authenticate_user()\ndrive.mount('/content/drive')\nprint('done')"
        )
    )
    assert said.splitlines()[-1] == "done", said
    assert [m["content"]["request"]["authType"] for _, m, _ in colab.asked] == ["auth_user_ephemeral", "dfs_ephemeral"]


@pytest.mark.parametrize(("line", "kind", "says"), [
    ("%drive auth", "auth_user_ephemeral", ""),
    ("%drive mount", "dfs_ephemeral", "Mounted at /content/drive\n"),
])  # fmt: skip
def test_consent_and_drive_from_the_magic(colab: Colab, line: str, kind: str, says: str) -> None:
    messages = colab.run(line)
    assert messages[-1]["content"]["status"] == "ok", text(messages)
    assert text(messages).endswith(says)
    assert [m["content"]["request"] for _, m, _ in colab.asked] == [{"authType": kind}]


def test_a_refusal_fails_the_magics_cell(colab: Colab) -> None:
    colab.answers["request_auth"] = lambda request: {"success": False}
    messages = colab.run("%drive mount")
    assert messages[-1]["content"]["status"] == "error"
    assert "unsuccessful" in text(messages)


def test_a_file_is_downloaded_piece_by_piece(colab: Colab) -> None:
    content = os.urandom((5 << 20) // 2)
    path = colab.folder / "weights.bin"
    path.write_bytes(content)
    shown = colab.run(f"from google.colab import files\nfiles.download({str(path)!r})")
    scripts = [m["content"]["data"]["application/javascript"] for m in shown if m["msg_type"] == "display_data"]
    target = re.search(r'download\("(download_[^"]+)", "weights.bin", (\d+)\)', scripts[-1])
    assert int(target[2]) == len(content)

    send = colab.comm(target[1])
    send("comm_msg", {})
    pieces: list[bytes] = []

    def over(_: str, m: dict) -> bool:
        if m["msg_type"] == "comm_msg":
            pieces.extend(bytes(b) for b in m["buffers"])
            send("comm_msg", {})
        return m["msg_type"] == "comm_close"

    colab.until(over)
    assert [len(p) for p in pieces] == [1 << 20, 1 << 20, 1 << 19]
    assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(content).digest()


def test_keepalive_hears_the_page(colab: Colab) -> None:
    card = text(colab.run("%keepalive"))
    assert "Host: Google Colab" in card
    assert "terms forbid" in card
    assert "Page's last sign of life: none yet" in text(colab.run("%keepalive status"))
    heard = r"Page's last sign of life: (\d\d:\d\d:\d\d)"

    colab.comm("outlast_beat")("comm_close", {})
    rig.wait_for("the page's comm", lambda: re.search(heard, text(colab.run("%keepalive status"))))
    colab.run("%keepalive off")
    colab.run("%keepalive")
    assert not re.search(heard, text(colab.run("%keepalive status")))
    assert colab.invoke("outlast_beat")["status"] == "ok", "a page without comms calls"
    assert re.search(heard, text(colab.run("%keepalive status")))
    colab.run("%keepalive off")


def test_forms_and_questions_of_the_page_are_left_alone(colab: Colab) -> None:
    said = text(colab.run('#@title Look here { display-mode: "form" }\n\n%outlast'))
    assert "%train" in said, "comments before a magic are common in Colab"
    before = colab.run("%outlast")[-1]["content"]["execution_count"]
    reply = colab.run("%outlast", silent=True, store_history=False)[-1]
    assert reply["content"]["status"] in ("ok", "error")
    after = colab.run("%outlast")[-1]["content"]["execution_count"]
    assert after == before + 1, "what a panel runs has no number"
