"""Starts a kernel as Colab does, over ipc and without a key, and has it add.

Arguments: the kernel's command as JSON, and how many seconds it may take. Ends
with 0 if the kernel works, with 3 if there is no client to try it with, and else
with 1 after saying why.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

try:
    from jupyter_client import BlockingKernelClient
    from jupyter_client.connect import write_connection_file
except ImportError:
    sys.exit(3)


def wait_until_ready(client, kernel, deadline):
    while True:
        try:
            client.wait_for_ready(timeout=2)
            return
        except RuntimeError:
            if kernel.poll() is not None:
                raise RuntimeError(f"it ended with status {kernel.returncode}") from None
            if time.monotonic() > deadline:
                raise RuntimeError("it does not answer") from None


def add(client, deadline):
    left = max(deadline - time.monotonic(), 1)
    asked = client.execute("", user_expressions={"sum": "1 + 1"}, store_history=False)
    while True:
        reply = client.get_shell_msg(timeout=left)
        if reply["parent_header"].get("msg_id") == asked:
            break
    answer = reply["content"].get("user_expressions", {}).get("sum", {})
    if answer.get("data", {}).get("text/plain") != "2":
        raise RuntimeError(f"it cannot add: {reply['content'].get('evalue') or reply['content']}")


def stop(kernel, grace):
    with contextlib.suppress(subprocess.TimeoutExpired):
        kernel.wait(grace)
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(kernel.pid, signal.SIGKILL)  # what it started, too
    else:
        kernel.kill()
    kernel.wait()


def main():
    command, deadline = json.loads(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    transport = "ipc" if os.name == "posix" else "tcp"
    grace = 0  # who fails, or is interrupted, is not asked to end but ended
    with tempfile.TemporaryDirectory(prefix="outlast-check-") as folder:
        file = os.path.join(folder, "kernel.json")
        where = os.path.join(folder, "k") if transport == "ipc" else "127.0.0.1"
        write_connection_file(file, transport=transport, ip=where, key=b"")
        fill = {"{connection_file}": file, "{prefix}": sys.prefix}
        command = [fill.get(word, word) for word in command]
        with open(os.path.join(folder, "log"), "w+", encoding="utf-8", errors="replace") as log:
            kernel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            client = BlockingKernelClient(connection_file=file)
            client.load_connection_file()
            client.start_channels()
            try:
                wait_until_ready(client, kernel, deadline)
                add(client, deadline)
                client.shutdown()
                grace = 10
            except Exception as error:
                log.seek(0)
                last = [line.strip() for line in log if line.strip()][-5:]
                print("; ".join([str(error) or type(error).__name__, *last]))
                return 1
            finally:
                client.stop_channels()
                stop(kernel, grace)
    return 0


sys.exit(main())
