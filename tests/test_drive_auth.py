"""Signing in to Google Drive with a browser: whatever is seen of it afterwards holds no secret."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import rig
from jupyter_client.manager import KernelManager

CLIENT = "123-abc.apps.googleusercontent.com"
SECRET = "GOCSPX-the-client-secret"

# What opens the address it is given, and notes what the machine's users can see meanwhile.
BROWSER = """#!{python}
import sys, urllib.request
from pathlib import Path
seen = []
for process in Path("/proc").glob("[0-9]*"):
    try:
        command = (process / "cmdline").read_bytes().replace(b"\\0", b" ").decode(errors="replace")
    except OSError:
        continue
    if "outlast" in command or "browser" in command:
        seen.append(command)
Path({seen!r}).write_text("\\n".join(seen))
urllib.request.urlopen(sys.argv[1]).read()
"""


@dataclass
class Desk:
    """A machine where nobody is signed in, and a Drive that wants a sign-in."""

    drive: str
    folder: Path

    def client_file(self) -> Path:
        """The file that Google's console gives."""
        path = self.folder / "client.json"
        installed = {"client_id": CLIENT, "client_secret": SECRET, "redirect_uris": ["http://localhost"]}
        path.write_text(json.dumps({"installed": installed}))
        return path

    def environment(self, **extra: str) -> dict[str, str]:
        """Of its user, who has no screen."""
        env = rig.environment(
            OUTLAST_DRIVE_ENDPOINT=self.drive,
            OUTLAST_DRIVE_TOKEN_URL=self.drive + "/token",
            XDG_CONFIG_HOME=str(self.folder / "config"),
            XDG_CACHE_HOME=str(self.folder / "cache"),
            OUTLAST_LOG="debug",
        )
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "GOOGLE_APPLICATION_CREDENTIALS"):
            env.pop(name, None)
        return env | extra

    def browser(self) -> str:
        """A browser whose person says yes."""
        path = self.folder / "browser"
        path.write_text(BROWSER.format(python=sys.executable, seen=str(self.folder / "seen")))
        path.chmod(0o755)
        return str(path)

    def secrets(self) -> list[str]:
        """All that must be seen nowhere."""
        with urllib.request.urlopen(self.drive + "/secrets") as answer:
            tokens = answer.read().decode().split()
        assert len(tokens) >= 2, "somebody has signed in"
        return [*tokens, SECRET, "4/0fake"]

    def kept(self) -> Path:
        """Where the sign-in is kept."""
        return self.folder / "config" / "outlast" / "drive.json"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A machine, and a Drive that refuses what Google would."""
    program = tmp_path / "fakedrive"
    package = "./checkpoint/drivetest/fakedrive"
    subprocess.run(["go", "build", "-o", program, package], cwd=rig.ROOT, check=True)
    of_user = Desk("", tmp_path).client_file()
    serving = subprocess.Popen(
        [program, "--auth", "--client", of_user], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    url = serving.stdout.readline().strip()
    yield Desk(url, tmp_path)
    with urllib.request.urlopen(url + "/violations") as answer:
        violations = answer.read().decode()
    serving.stdin.close()
    serving.wait(10)
    assert not violations, "Google would have refused: " + violations


def elsewhere(link: str) -> str:
    """The address that a browser on another machine is led to, and cannot open."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    with pytest.raises(urllib.error.HTTPError) as led:
        urllib.request.build_opener(Stay).open(link)
    assert led.value.code == 302
    return led.value.headers["Location"]


def link_in(text: str, desk: Desk) -> str:
    """The link that a person is shown."""
    return re.search(rf"^{re.escape(desk.drive)}/auth\?\S+$", text, re.MULTILINE)[0]


def require_no_secret(desk: Desk, text: str) -> None:
    """Whatever was shown, logged or written by others holds none."""
    for secret in desk.secrets():
        assert secret not in text
    for path in desk.folder.rglob("*"):
        if path.is_file() and path not in (desk.kept(), desk.folder / "client.json", desk.folder / "fakedrive"):
            for secret in desk.secrets():
                assert secret.encode() not in path.read_bytes(), path


def test_a_terminal_signs_in_with_its_browser_and_trains_to_drive(desk: Desk) -> None:
    env = desk.environment(BROWSER=desk.browser())
    refused = rig.outlast("drive", "auth", env=env, check=False)
    assert refused.returncode != 0
    assert "--client FILE" in refused.stderr
    done = rig.outlast("drive", "auth", "--client", desk.client_file(), env=env, timeout=60)
    assert "Signed in to Google Drive as ann@example.com" in done.stdout
    seen = (desk.folder / "seen").read_text()
    assert "outlast drive auth" in seen, "the list of processes was read"
    assert "state=" not in seen
    assert "code_challenge" not in seen
    assert stat.S_IMODE(desk.kept().stat().st_mode) == 0o600

    status = rig.outlast("drive", "status", env=env)
    assert "drive:Outlast, for runs that name none" in status.stdout
    assert "ann@example.com, by the sign-in of %drive auth" in status.stdout
    plan = rig.write_plan(desk.folder / "plan")
    data = desk.folder / "data"
    trained = rig.outlast("train", plan, "--dir", data, env=env)
    state = rig.status(data)
    assert {m["checkpoint"]["durability"] for m in state["models"]} == {"mirrored"}, state
    require_no_secret(desk, done.stdout + done.stderr + status.stdout + trained.stdout + trained.stderr + seen)


def test_a_notebook_whose_browser_is_elsewhere_asks_for_the_address(desk: Desk, kernel_spec: Path) -> None:
    manager = KernelManager(kernel_name="outlast")
    manager.kernel_spec_manager.kernel_dirs = [str(kernel_spec)]
    log = (desk.folder / "kernel.log").open("w")
    manager.start_kernel(env=desk.environment(), cwd=str(desk.folder), stdout=log, stderr=log)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        messages: list[dict] = []

        def answer(question: dict) -> None:
            assert question["content"]["password"], "what is pasted is not shown"
            assert "Paste the address" in question["content"]["prompt"]
            shown = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
            client.input(elsewhere(link_in(shown, desk)))

        def run(code: str) -> dict:
            return client.execute_interactive(
                code, allow_stdin=True, stdin_hook=answer, output_hook=messages.append, timeout=60
            )

        assert run(f"%drive auth --client {desk.client_file()}")["content"]["status"] == "ok", messages
        assert run("%drive\nprint(sorted(n for n in dir() if 'outlast' in n or n in ('address', 'pasted')))")
        text = json.dumps(messages, default=str)
        assert "Signed in to Google Drive as ann@example.com" in text
        assert "by the sign-in of %drive auth" in text
        assert "[]" in text, "the notebook's names are its own"
        assert client.execute_interactive("history = In[:]; print(history)", output_hook=messages.append, timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        log.close()
    require_no_secret(desk, json.dumps(messages, default=str))


def test_a_terminal_without_a_browser_takes_the_address_too(desk: Desk) -> None:
    pty, terminal = os.openpty()
    command = [rig.BINARY, "drive", "auth", "--client", desk.client_file()]
    signing = subprocess.Popen(
        command, env=desk.environment(), stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(terminal)
    shown = ""
    while "paste it below" not in shown:
        line = signing.stdout.readline()
        assert line, shown
        shown += line
    os.write(pty, b"that is no address\n")
    assert "read the pasted address" in signing.stderr.readline()
    os.write(pty, elsewhere(link_in(shown, desk)).encode() + b"\n")
    rest, errors = signing.communicate(timeout=60)
    os.close(pty)
    assert signing.returncode == 0, errors
    assert "Signed in to Google Drive as ann@example.com" in rest
    require_no_secret(desk, shown + rest + errors)
