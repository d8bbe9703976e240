"""The kernel stands when the Python in it falls, and nothing of it stays when it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
from kernel_rig import PATIENCE, Kernel, await_end, descendants

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


@pytest.fixture
def kernel(kernel_spec: Path, tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(kernel_spec, "outlast", tmp_path)
    yield kernel
    below = descendants(kernel.pid) if kernel.manager.has_kernel else []
    kernel.close()
    await_end(below)


DEATHS = {
    "exit": ("import os; os._exit(7)", "exit status 7"),
    "kill": ("import os; os.kill(os.getpid(), 9)", "SIGKILL, signal 9"),
    "crash": ("import ctypes; ctypes.string_at(0)", "SIGSEGV, signal 11"),
    "abort": ("import os; os.abort()", "SIGABRT, signal 6"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_cell_whose_python_dies_says_why(kernel: Kernel, death: str) -> None:
    code, why = DEATHS[death]
    kernel.run("precious = 1")
    dying = kernel.execute("import time; time.sleep(0.3)\n" + code)
    behind = kernel.execute("print('never')")
    ours = kernel.execute("%outlast")
    began = time.monotonic()
    result = kernel.finish(dying)
    assert time.monotonic() - began < 8, "a second, on a machine that has the time"
    assert result.content["ename"] == "KernelDied"
    text = "\n".join(result.content["traceback"])
    assert why in text
    assert "variables are gone" in text
    assert "the most memory it had was" in text
    assert kernel.finish(behind).status == "aborted"
    assert kernel.finish(ours).status == "aborted"
    again = kernel.run("precious")
    assert again.content["ename"] == "NameError"
    assert again.count == 1
    assert kernel.run("%outlast").status == "ok"


def test_the_front_end_is_told_of_the_restart(kernel: Kernel) -> None:
    kernel.execute("import os; os._exit(1)")
    assert kernel.states("idle") == ["restarting", "idle"]


def test_the_heart_beats_and_info_is_given_while_python_is_away(kernel: Kernel) -> None:
    kernel.execute("import os; os._exit(1)")
    for _ in range(10):
        began = time.monotonic()
        kernel.client.kernel_info()
        while kernel.client.get_shell_msg(timeout=PATIENCE)["msg_type"] != "kernel_info_reply":
            pass
        assert time.monotonic() - began < 1
        assert kernel.client.is_alive()
        assert kernel.client.hb_channel.is_beating()
        time.sleep(0.05)


HANG = """
import signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
print("hanging", flush=True)
while True: pass
"""


def test_a_hanging_python_can_be_restarted_alone(kernel: Kernel) -> None:
    hanging = kernel.execute(HANG)
    kernel.await_output(hanging, "hanging")
    (child,) = descendants(kernel.pid)
    assert kernel.ask("interrupt_request", {}, "control").status == "ok"
    restart = kernel.execute("%outlast restart")
    replies = {}
    while len(replies) < 2:
        reply = kernel.client.get_shell_msg(timeout=PATIENCE)
        replies[reply["parent_header"]["msg_id"]] = reply["content"]
    assert replies[restart]["status"] == "ok"
    assert "it was restarted" in replies[hanging]["evalue"]
    assert not rig.alive(child)
    assert kernel.run("1 + 1").data() == ["2"]


def family(kernel: Kernel) -> list[int]:
    """The processes of a kernel in which a cell has started others that ignore SIGTERM."""
    kernel.run(
        "import subprocess, multiprocessing, signal\n"
        "subprocess.Popen(['sh', '-c', 'trap \"\" TERM INT; sleep 600 & wait'])\n"
        "subprocess.Popen(['sleep', '600'])"
    )
    rig.wait_for("the family", lambda: len(descendants(kernel.pid)) >= 4)
    return descendants(kernel.pid)


@pytest.mark.parametrize("how", ["shutdown", "shutdown of a hanging one", "now", "restart", "SIGTERM"])
def test_nobody_stays_behind(kernel: Kernel, how: str) -> None:
    below = family(kernel)
    if "hanging" in how:
        kernel.await_output(kernel.execute(HANG), "hanging")
    began = time.monotonic()
    if how == "restart":
        kernel.manager.restart_kernel()
        kernel.client.wait_for_ready(timeout=PATIENCE)
    elif how == "SIGTERM":
        os.kill(kernel.pid, signal.SIGTERM)
    else:
        kernel.manager.shutdown_kernel(now=how == "now")
    if how == "now":  # SIGKILL, also for us: only the child itself is bound to our life
        await_end(below[:1])
        for pid in below[1:]:
            if rig.alive(pid):
                os.kill(pid, signal.SIGKILL)
        return
    await_end(below)
    assert time.monotonic() - began < 6, "Jupyter's own patience ends after five seconds"
    if how == "restart":
        assert kernel.run("1").data() == ["1"]


def test_the_python_dies_with_a_killed_kernel(kernel: Kernel) -> None:
    child = descendants(kernel.pid)
    os.kill(kernel.pid, signal.SIGKILL)
    assert await_end(child) < 8


def test_many_restarts_leave_no_files(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> None:
    temp = Path(os.environ.get("TMPDIR", "/tmp"))
    for _ in range(3):
        kernel.run("import os; os._exit(1)")
        kernel.run("1")
    mine = list(temp.glob(f"outlast-{kernel.pid}-*"))
    assert len(mine) <= 4, mine
    pid = kernel.pid
    kernel.manager.shutdown_kernel()
    assert list(temp.glob(f"outlast-{pid}-*")) == []
