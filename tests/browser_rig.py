"""JupyterLab as people have it: a real server, a real browser, and a wire between them that can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import rig
from playwright.sync_api import Browser, Locator, Page, sync_playwright

TOKEN = "secret"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# A model that trains without torch, and slowly, until it is let go.
TRAIN = """
import time
from pathlib import Path

import outlast

job = outlast.job()
for step in job.steps(2000):
    job.log(loss=1 / (1 + step))
    if not Path(job.params["go"]).exists():
        time.sleep(0.05)
job.finish(accuracy=0.9)
"""


def find_browser() -> str | None:
    """The path of a browser that can be driven, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Wire:
    """A port that passes everything on to another, until it is cut."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.lock = threading.Lock()
        self.sockets: set[socket.socket] = set()
        self.listener: socket.socket | None = None
        self.restore()

    def restore(self) -> None:
        """Lets connections through."""
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self) -> None:
        """Ends all connections; new ones are refused."""
        with self.lock:
            listener, self.listener = self.listener, None
            ends = [*self.sockets, *([listener] if listener else [])]
            self.sockets.clear()
        for s in ends:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # cut
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                with self.lock:
                    if self.listener is not listener:
                        near.close()
                        far.close()
                        return
                    self.sockets |= {near, far}
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with self.lock:
            self.sockets -= {source, sink}
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


class Server:
    """A Jupyter server with our kernel. Its folder holds the notebooks and the runs."""

    def __init__(self, folder: Path, kernels: Path, *flags: str, app: str = "lab", **variables: str) -> None:
        self.folder = folder / "notebooks"
        self.folder.mkdir(parents=True)
        self.data = self.folder / "outlast-runs"
        self.port = free_port()
        self.log = folder / "server.log"
        env = rig.environment(
            JUPYTER_PATH=str(kernels.parent),
            JUPYTER_CONFIG_DIR=str(folder / "config"),
            JUPYTER_DATA_DIR=str(folder / "data"),
            JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
            XDG_CACHE_HOME=str(folder / "cache"),
            **variables,
        )
        command = [
            sys.executable, "-m", "jupyter", app, "--no-browser", "--ip=127.0.0.1", f"--port={self.port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.folder}",
            *(["--allow-root"] if os.name == "posix" and os.geteuid() == 0 else []), *flags,
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            rig.wait_for("the Jupyter server", self._answers)
        except AssertionError as error:
            self.close()
            raise AssertionError(f"{error}\n{self.log.read_text()[-3000:]}") from error

    def _answers(self) -> bool:
        try:
            self.ask("api/status")
        except OSError:
            return False
        return True

    def ask(self, path: str, body: object = None, method: str | None = None) -> object:
        """What the server's API answers. Questions do not count as activity."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}?no_track_activity=1",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def kernels(self) -> dict[str, dict]:
        """The kernels that run, by id."""
        return {k["id"]: k for k in self.ask("api/kernels")}

    def close(self) -> None:
        """Ends the server and what it started."""
        with contextlib.suppress(OSError, AssertionError):
            for kernel in self.kernels():
                self.ask(f"api/kernels/{kernel}", method="DELETE")
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lab(Server):
    """A JupyterLab server behind a wire."""

    def __init__(self, folder: Path, kernels: Path) -> None:
        settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab"
        for name, value in {
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "notebook-extension/tracker": {"windowingMode": "none"},
        }.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        super().__init__(folder, kernels)
        self.wire = Wire(self.port)

    def notebook(self, name: str, *cells: str) -> Path:
        """Writes a notebook for our kernel; cells are its code."""
        path = self.folder / f"{name}.ipynb"
        path.write_text(
            json.dumps(
                {
                    "nbformat": 4,
                    "nbformat_minor": 5,
                    "metadata": {"kernelspec": {"name": "outlast", "display_name": "Python 3 (Outlast)"}},
                    "cells": [
                        {"cell_type": "code", "id": f"cell-{i}", "source": source, "metadata": {}, "outputs": [],
                         "execution_count": None}
                        for i, source in enumerate(cells)
                    ],
                }
            )
        )  # fmt: skip
        return path

    def train(self, name: str, *flags: str) -> str:
        """The %train line of a run called name, whose model ends when release is called."""
        (self.folder / "train.py").write_text(TRAIN)
        models = self.folder / f"{name}.json"
        models.write_text(json.dumps([{"name": m, "params": {"go": str(self._go(name))}} for m in ("first", "second")]))
        return " ".join(
            ("%train", name, "--script train.py --models", models.name, "--checkpoint-every 1s --store none", *flags)
        )

    def _go(self, name: str) -> Path:
        return self.folder / f"{name}.go"

    def release(self, name: str) -> None:
        """Lets the run come to its end."""
        self._go(name).touch()

    def step(self, name: str) -> int:
        """How many steps the run has done, in all its models."""
        return sum(m["step"] for m in rig.status(self.data, name)["models"])

    def close(self) -> None:
        """Ends the runs that a failed test left, and the server."""
        for state in self.data.glob("*/state.json"):
            self.release(state.parent.name)
            rig.outlast("stop", state.parent.name, "--dir", self.data, check=False)
        super().close()
        self.wire.cut()


class Tab:
    """A notebook in a tab of the browser."""

    def __init__(self, page: Page, lab: Lab, path: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        workspace = f"{path.stem}-{time.monotonic_ns()}"  # so that no other tab's notebooks are opened too
        page.goto(f"http://127.0.0.1:{lab.wire.port}/lab/workspaces/{workspace}/tree/{path.name}?token={TOKEN}")
        self.ready()

    def ready(self) -> None:
        """Waits until the notebook can be used."""
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=90_000)
        self.page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=90_000)
        bar = self.page.locator("#jp-main-statusbar")  # cells that are run before that are lost
        rig.wait_for("the kernel", lambda: re.search(r"\(Outlast\) \| (Idle|Busy)", bar.inner_text()))

    def reload(self) -> None:
        """Reloads the page."""
        self.page.reload()
        self.ready()

    def cell(self, index: int) -> Locator:
        """One code cell, counted from 0; -1 is the last."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def run(self, index: int) -> None:
        """Runs a cell, and does not wait for it."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def add(self, code: str) -> int:
        """Types a new cell below all others, and runs it; returns its index."""
        cells = self.page.locator(".jp-Notebook .jp-CodeCell")
        count = cells.count()
        self.cell(count - 1).locator(".cm-content").click()
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("b")
        rig.wait_for("a new cell", lambda: cells.count() == count + 1)
        self.cell(count).locator(".cm-content").click()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Control+Enter")
        return count

    def output(self, index: int) -> str:
        """What a cell shows below its code."""
        return "\n".join(self.cell(index).locator(".jp-OutputArea-output").all_inner_texts())

    def shows(self, index: int, *texts: str, seconds: float = 60) -> str:
        """Waits until a cell shows all these texts."""

        def there() -> str | None:
            output = self.output(index)
            return output if all(text in output for text in texts) else None

        try:
            return str(rig.wait_for(f"{texts} below cell {index}", there, seconds))
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.output(index)}") from error

    def step(self, index: int) -> int:
        """The step that a live table shows, in all models."""
        return sum(int(n.replace(",", "")) for n in re.findall(r"([\d,]+)/2,?000", self.output(index)))

    def reaches(self, index: int, step: int, seconds: float = 60) -> None:
        """Waits until a live table shows this step or a later one."""
        rig.wait_for(f"step {step} in cell {index}", lambda: self.step(index) >= step, seconds)

    def save(self, path: Path) -> dict:
        """Saves the notebook as a user does, and returns what is in the file."""
        before = path.stat().st_mtime_ns

        def saved() -> dict | None:
            text = path.read_text() if path.stat().st_mtime_ns > before else ""
            return json.loads(text) if text.endswith("}\n") else None  # it may be half written

        self.page.keyboard.press("Control+s")
        return rig.wait_for("the saved notebook", saved)


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A browser without a window."""
    flags = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
             "--disable-component-update", "--disable-dev-shm-usage"]  # fmt: skip
    if os.name == "posix" and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium's sandbox refuses root
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


def stay_away(seconds: float, lab: Lab, run: str) -> int:
    """Waits for so long, at least until the run has done steps meanwhile; returns its step."""
    began, step = time.monotonic(), lab.step(run)
    rig.wait_for(
        "the run to go on alone",
        lambda: time.monotonic() - began >= seconds and lab.step(run) > step,
        seconds + 60,
    )
    return lab.step(run)
