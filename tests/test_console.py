"""`jupyter console`: a terminal, in which nothing can be drawn over and no picture be shown."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import rig

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>])")

# A model that trains slowly until it is let go, at once if nobody has to.
TRAIN = """
import time
from pathlib import Path

import outlast

job = outlast.job()
for step in job.steps(200):
    job.log(loss=1 / (1 + step))
    if "go" in job.params and not Path(job.params["go"]).exists():
        time.sleep(0.2)
job.finish(accuracy=0.9)
"""


class Console:
    """A real `jupyter console` with our kernel, in a terminal of some width."""

    def __init__(self, folder: Path, kernels: Path, width: int) -> None:
        self.folder, self.width = folder, width
        env = rig.environment(
            JUPYTER_PATH=str(kernels.parent),
            JUPYTER_CONFIG_DIR=str(folder / "config"),
            JUPYTER_DATA_DIR=str(folder / "data"),
            JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
            XDG_CACHE_HOME=str(folder / "cache"),
            IPYTHONDIR=str(folder / "ipython"),
            TERM="xterm",
            PROMPT_TOOLKIT_NO_CPR="1",  # nobody here tells where the cursor is
        )
        self.count = 0
        self.terminal = pexpect.spawn(
            sys.executable, ["-m", "jupyter", "console", "--no-confirm-exit", "--kernel", "outlast"],
            cwd=folder, env=env, dimensions=(50, width), encoding="utf-8", timeout=90,
        )  # fmt: skip
        self.prompt()

    def prompt(self) -> str:
        """Waits for the next prompt; returns what was shown before it."""
        self.count += 1
        colour = r"(?:\x1b\[[0-9;?]*[A-Za-z])*"
        self.terminal.expect(rf"In \[{colour}{self.count}{colour}\]:")
        return ESCAPES.sub("", self.terminal.before).replace("\r", "")

    def begin(self, line: str) -> None:
        """Types a line."""
        self.terminal.send(line)
        self.terminal.send("\r")

    def run(self, line: str) -> list[str]:
        """Types a line; returns the lines that it shows."""
        self.begin(line)
        shown = self.prompt()
        return [text.rstrip() for text in shown.splitlines()]

    def close(self) -> None:
        """Ends the console, and the kernel with it."""
        self.terminal.sendeof()
        try:
            self.terminal.expect(pexpect.EOF, timeout=20)
        finally:
            self.terminal.close(force=True)


@pytest.fixture(scope="module", params=[80, 120])
def console(
    request: pytest.FixtureRequest, kernel_spec: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    c = Console(tmp_path_factory.mktemp("console"), kernel_spec, request.param)
    yield c
    c.close()


def train(console: Console, run: str) -> Path:
    """Begins a run of two models; the second one trains until the file that is returned is there."""
    (console.folder / "train.py").write_text(TRAIN)
    go = console.folder / f"{run}.go"
    plan = [{"name": "first"}, {"name": "second", "params": {"go": str(go)}}]
    (console.folder / "models.json").write_text(json.dumps(plan))
    console.begin(f"%train {run} --script train.py --models models.json --store none")
    console.terminal.expect_exact("▶ second: running")
    return go


def fits(lines: list[str], width: int) -> bool:
    """Whether a terminal of this width shows these lines whole; a path is never torn."""
    return all(len(text) <= width or max(map(len, text.split())) > width // 2 for text in lines)


@pytest.mark.parametrize(
    ("line", "shows"),
    [
        ("%outlast", "%keepalive"),
        ("%gpu_config", "Chosen: cpu"),
        ("%doctor", "Jupyter console"),
        ("%keepalive", "Host: Jupyter console"),
        ("%shared --help", "Run a cell here and, first, in every worker"),
        ("%status --nosuch", "Usage: %status [RUN]"),
    ],
)
def test_what_is_shown_fits_the_terminal(console: Console, line: str, shows: str) -> None:
    lines = console.run(line)
    assert any(shows in text for text in lines), lines
    assert fits(lines, console.width), lines


def test_a_run_is_told_as_a_log_and_ends_with_its_table(console: Console) -> None:
    train(console, "run").touch()
    shown = console.prompt()
    assert "run: done, 2 of 2 models done" in shown
    assert shown.count("first") == 1, "one table, at the end"
    assert "pending" not in shown, "nothing that is long past"
    assert "Keep-alive" not in shown, "a card that cannot be updated is not shown again"
    assert fits(shown.splitlines(), console.width), shown

    results = console.run("%results run")
    assert "Plots: loss of 2 models over the steps of training" in " ".join(results)
    assert not any("open" in text for text in results), "no picture that a terminal cannot show"
    (told,) = [text for text in console.run("%results run --zip all.zip") if "all.zip (" in text]
    assert told.startswith("Results written to all.zip (of 2 models, ")
    assert (console.folder / "all.zip").exists()


def test_an_interrupt_pauses_the_run(console: Console) -> None:
    go = train(console, "paused")
    console.terminal.sendintr()
    shown = " ".join(console.prompt().split())
    assert "paused: paused, 1 of 2 models done" in shown
    assert "%resume paused continues it" in shown
    assert "Traceback" not in shown
    go.touch()
    assert "paused: done, 2 of 2 models done" in " ".join(console.run("%resume paused"))
