"""A kernel under test, and what its cells show: through jupyter_client, as front ends do it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty

import rig
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

PATIENCE = 60.0


@dataclass
class Result:
    """What came of a request: its reply, and what was published for it."""

    reply: dict
    outputs: list[dict] = field(default_factory=list)

    @property
    def content(self) -> dict:
        return self.reply["content"]

    @property
    def status(self) -> str:
        return self.content["status"]

    @property
    def count(self) -> int:
        return self.content["execution_count"]

    @property
    def text(self) -> str:
        """Everything that was printed."""
        return "".join(m["content"]["text"] for m in self.of("stream"))

    @property
    def types(self) -> list[str]:
        return [m["msg_type"] for m in self.outputs]

    def of(self, *types: str) -> list[dict]:
        return [m for m in self.outputs if m["msg_type"] in types]

    def data(self, mime: str = "text/plain") -> list:
        """What was shown under a media type."""
        shown = self.of("display_data", "update_display_data", "execute_result")
        return [m["content"]["data"][mime] for m in shown if mime in m["content"]["data"]]


class Kernel:
    """A kernel that was started as Jupyter Server starts it."""

    def __init__(self, specs: Path, name: str, folder: Path) -> None:
        self.manager = KernelManager(kernel_name=name)
        self.manager.kernel_spec_manager.kernel_dirs = [str(specs), *self.manager.kernel_spec_manager.kernel_dirs]
        # The wrapped kernel is to be the test's own Python, not the system's.
        paths = [str(specs.parent), str(Path(sys.prefix) / "share" / "jupyter")]
        self.manager.start_kernel(env=rig.environment(JUPYTER_PATH=os.pathsep.join(paths)), cwd=str(folder))
        self.client = self.connect()

    def connect(self) -> BlockingKernelClient:
        client = self.manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE)
        return client

    @property
    def pid(self) -> int:
        return self.manager.provisioner.pid

    def close(self) -> None:
        self.client.stop_channels()
        if not self.manager.has_kernel:
            return
        self.manager.shutdown_kernel()
        self.manager.cleanup_resources()

    def send(self, kind: str, content: dict, channel: str = "shell", **parts: object) -> str:
        """Sends a request; returns its id. parts are header fields and buffers."""
        message = self.client.session.msg(kind, content)
        message["header"].update(parts.pop("header", {}))
        sender = self.client.shell_channel if channel == "shell" else self.client.control_channel
        self.client.session.send(sender.socket, message, **parts)
        return message["header"]["msg_id"]

    def execute(self, code: str, **options: object) -> str:
        return self.client.execute(code, **options)

    def run(self, code: str, **options: object) -> Result:
        return self.finish(self.execute(code, **options))

    def ask(self, kind: str, content: dict, channel: str = "shell", **parts: object) -> Result:
        return self.finish(self.send(kind, content, channel, **parts), channel)

    def finish(self, msg_id: str, channel: str = "shell") -> Result:
        """Waits for the reply to a request and for the idle after it."""
        outputs = self.publications(msg_id)
        receiver = self.client.shell_channel if channel == "shell" else self.client.control_channel
        while True:
            reply = receiver.get_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == msg_id:
                return Result(reply, outputs)

    def publications(self, msg_id: str) -> list[dict]:
        """What is published for a request, up to its idle."""
        outputs = []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] != "status":
                outputs.append(message)
            elif message["content"]["execution_state"] == "idle":
                return outputs

    def await_output(self, msg_id: str, text: str = "") -> None:
        """Waits until a request has printed text, or at least begun."""
        kind = "stream" if text else "execute_input"
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != msg_id or message["msg_type"] != kind:
                continue
            if text in message["content"].get("text", ""):
                return

    def states(self, until: str) -> list[str]:
        """The states that were published without a request, up to one of them."""
        seen = []
        while until not in seen:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["msg_type"] == "status" and not message["parent_header"]:
                seen.append(message["content"]["execution_state"])
        return seen

    def answer(self, value: str) -> dict:
        """Answers what the kernel asks on stdin; returns the question."""
        question = self.client.get_stdin_msg(timeout=PATIENCE)
        self.client.input(value)
        return question["content"]

    def quiet(self) -> bool:
        """Whether nothing more is published."""
        try:
            self.client.get_iopub_msg(timeout=0.2)
        except Empty:
            return True
        return False


def descendants(pid: int) -> list[int]:
    """The processes below pid, whatever group or session they are in."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, new = [], [pid]
    while new:
        new = [p for p, parent in parents.items() if parent in new]
        found += new
    return found


def await_end(pids: list[int], seconds: float = 10) -> float:
    """Waits until none of the processes works; returns how long that took."""
    began = time.monotonic()
    rig.wait_for(f"the end of {pids}", lambda: not any(map(rig.alive, pids)), seconds)
    return time.monotonic() - began
