"""Servers that stop idle kernels: one with a run that works is not idle, and afterwards it is."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import rig
from browser_rig import TRAIN, Server
from jupyter_client.blocking import BlockingKernelClient

IDLE = 6  # seconds after which a kernel counts as idle
LOOK = 1  # seconds between two looks of the culler


@pytest.fixture(scope="module")
def server(kernel_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Jupyter server that stops idle kernels, also those that somebody is connected to."""
    culler = {"cull_idle_timeout": IDLE, "cull_interval": LOOK, "cull_connected": True}
    flags = [f"--MappingKernelManager.{name}={value}" for name, value in culler.items()]
    s = Server(tmp_path_factory.mktemp("culling"), kernel_spec, *flags, app="server")
    (s.folder / "train.py").write_text(TRAIN)
    yield s
    s.close()


class Kernel:
    """A kernel that the server has started, and a client of it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.id = server.ask("api/kernels", {"name": "outlast"})["id"]
        self.client = BlockingKernelClient()
        self.client.load_connection_file(str(server.folder.parent / "runtime" / f"kernel-{self.id}.json"))
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str) -> str:
        """Runs a cell; returns what it shows as text."""
        shown: list[dict] = []
        reply = self.client.execute_interactive(
            code, timeout=60, output_hook=lambda message: shown.append(message["content"])
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        return "\n".join(c.get("text") or c.get("data", {}).get("text/plain", "") for c in shown)

    def restart(self) -> None:
        """What a front end's menu does."""
        self.server.ask(f"api/kernels/{self.id}/restart", {})
        self.client.wait_for_ready(timeout=60)

    def model(self) -> dict | None:
        """What the server says of it; None once it was culled."""
        return self.server.kernels().get(self.id)

    def last_activity(self) -> datetime:
        return moment(self.model()["last_activity"])


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.fixture
def kernel(server: Server) -> Iterator[Kernel]:
    k = Kernel(server)
    yield k
    k.client.stop_channels()
    with contextlib.suppress(OSError):
        server.ask(f"api/kernels/{k.id}", method="DELETE")


def culled(kernel: Kernel) -> None:
    rig.wait_for("the culler", lambda: kernel.model() is None, IDLE * 5)


def spared(kernel: Kernel, run: str) -> set[datetime]:
    """Looks on for twice the time after which an idle kernel would be gone; returns the signs of life seen."""
    busy = f"busy as long as this works: {run}"
    rig.wait_for("the keep-alive to see the run", lambda: busy in kernel.run("%keepalive status"), IDLE)
    signs = set()
    end = time.monotonic() + 2 * IDLE
    while time.monotonic() < end:
        model = kernel.model()
        assert model is not None, "it was culled although a run works"
        # The idle that ends a cell is followed by the run's busy: a look may fall between the two.
        rig.wait_for("the run's busy", lambda: kernel.model()["execution_state"] == "busy", LOOK)
        assert rig.status(kernel.server.data, run)["state"] == "running"
        signs.add(moment(model["last_activity"]))
        time.sleep(0.5)
    return signs


def train(server: Server, run: str) -> str:
    """The line that trains in the background, until release is called."""
    models = server.folder / f"{run}.json"
    models.write_text(json.dumps([{"name": "m", "params": {"go": str(server.folder / f"{run}.go")}}]))
    return f"%train {run} --detach --store none --script train.py --models {models.name}"


def release(server: Server, run: str) -> None:
    (server.folder / f"{run}.go").touch()


def test_without_a_run_the_kernel_is_culled(kernel: Kernel) -> None:
    kernel.run("%keepalive")
    culled(kernel)


def test_with_a_run_it_is_spared_and_afterwards_culled(server: Server, kernel: Kernel) -> None:
    kernel.run("%keepalive --every 2s")
    kernel.run(train(server, "spared"))
    signs = spared(kernel, "spared")

    # What jupyterhub-idle-culler asks: when was the server last active, as it reports to its hub?
    assert len(signs) > 3, "signs of life, although nobody asks the kernel anything"
    assert moment(server.ask("api/status")["last_activity"]) >= max(signs)

    release(server, "spared")
    rig.wait_for("an idle kernel", lambda: kernel.model()["execution_state"] == "idle")
    quiet, seen = kernel.last_activity(), []
    while model := kernel.model():
        seen.append(moment(model["last_activity"]))
        time.sleep(0.2)
    assert max(seen) - quiet < timedelta(seconds=2), "the last card, and then silence until it is culled"
    assert rig.status(server.data, "spared")["state"] == "done"


def test_with_a_run_it_is_spared_also_after_a_restart(server: Server, kernel: Kernel) -> None:
    kernel.run("%keepalive --every 2s")
    kernel.run(train(server, "restarted"))
    kernel.restart()
    assert len(spared(kernel, "restarted")) > 3, "signs of life, although its card is gone"
    release(server, "restarted")
    culled(kernel)


def test_with_a_run_but_without_keepalive_it_is_culled_and_the_run_goes_on(server: Server, kernel: Kernel) -> None:
    kernel.run(train(server, "alone"))
    culled(kernel)
    step = rig.status(server.data, "alone")["models"][0]["step"]
    rig.wait_for("the run", lambda: rig.status(server.data, "alone")["models"][0]["step"] > step + 5)
    release(server, "alone")
    rig.wait_for("its end", lambda: rig.status(server.data, "alone")["state"] == "done")
