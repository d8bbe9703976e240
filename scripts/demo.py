"""Runs the quick-start notebook on the Outlast kernel, as a newcomer would, and says where the results are.

`make demo` calls it with the virtual environment active and the program in PATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "build" / "demo"
RUN = "digits"
LINE_EVERY = 5.0  # seconds between lines about one cell, where the output is no terminal


class Narrator(NotebookClient):
    """Says which cell works, and follows the live view that a cell redraws."""

    started = 0.0
    told = 0.0
    interrupted = False

    def narrate(self) -> None:
        code = [i for i, c in enumerate(self.nb.cells) if c.cell_type == "code"]
        place = {index: n for n, index in enumerate(code, start=1)}

        def starts(cell: nbformat.NotebookNode, cell_index: int) -> None:
            if cell_index in place:
                self.started = self.told = time.monotonic()
                print(f"[{place[cell_index]:2}/{len(code)}] {title(cell)}", flush=True)

        def executed(cell: nbformat.NotebookNode, cell_index: int, execute_reply: dict) -> None:
            if cell_index in place:
                ok = execute_reply["content"]["status"]
                say(f"        {ok}, {time.monotonic() - self.started:.1f} s", last=True)

        self.on_notebook_start = self.take_interrupts
        self.on_cell_execute = starts
        self.on_cell_executed = executed

    def take_interrupts(self, notebook: nbformat.NotebookNode) -> None:
        """Lets Ctrl-C cancel the execution: nbclient's own handler takes the kernel away under the running cell."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            self.interrupted = True
            task.cancel()  # which nbclient reports as a dead kernel

        with contextlib.suppress(NotImplementedError):  # Windows raises KeyboardInterrupt by itself
            loop.add_signal_handler(signal.SIGINT, interrupt)

    def process_message(self, msg: dict, cell: nbformat.NotebookNode, cell_index: int) -> object:
        if msg["msg_type"] == "update_display_data" and self.due():
            text = msg["content"]["data"].get("text/plain", "")
            say("        " + text.partition("\n")[0])
        return super().process_message(msg, cell, cell_index)

    def due(self) -> bool:
        now = time.monotonic()
        if now - self.told < (0 if sys.stdout.isatty() else LINE_EVERY):
            return False
        self.told = now
        return True


def say(line: str, last: bool = False) -> None:
    """Prints a line; on a terminal the next one replaces it unless it is the last."""
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)


def title(cell: nbformat.NotebookNode) -> str:
    """The first line of a cell's code."""
    return next((line for line in cell.source.splitlines() if line.strip()), "")


def outlast(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs one command of the program in the demo's folder."""
    done = subprocess.run(["outlast", *args], cwd=DEMO, check=False, capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"outlast {' '.join(args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def clear() -> None:
    """Leaves an empty folder; a run that an interrupted demo left working is stopped first."""
    if (DEMO / "outlast-runs" / RUN).exists():
        outlast("stop", RUN, check=False)
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)


def run_notebook() -> nbformat.NotebookNode:
    """Executes the notebook in the demo's folder; what it showed is saved even if a cell fails."""
    book = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    book.metadata.kernelspec = {"name": "outlast", "display_name": "Python 3 (Outlast)", "language": "python"}
    client = Narrator(book, kernel_name="outlast", timeout=None, resources={"metadata": {"path": str(DEMO)}})
    client.narrate()
    try:
        client.execute()
    except CellExecutionError as err:
        sys.exit(f"\nThe demo failed in a cell:\n{err}\nThe notebook so far: {DEMO / 'quickstart.ipynb'}")
    except (KeyboardInterrupt, asyncio.CancelledError, DeadKernelError) as err:
        if not client.interrupted and not isinstance(err, KeyboardInterrupt):
            raise
        outlast("stop", RUN, check=False)
        sys.exit("\nInterrupted. The training is paused; make demo starts anew.")
    finally:
        nbformat.write(book, DEMO / "quickstart.ipynb")
    return book


def main() -> None:
    began = time.monotonic()
    clear()
    print("Running notebooks/quickstart.ipynb on the kernel 'outlast'\n", flush=True)
    book = run_notebook()
    page, _ = HTMLExporter().from_notebook_node(book)
    (DEMO / "quickstart.html").write_text(page, encoding="utf-8")
    outlast("results", RUN, "--plot", "digits.svg")
    print(f"""
{outlast("results", RUN).stdout.rstrip()}

Done in {time.monotonic() - began:.0f} s. In {DEMO.relative_to(ROOT)}:
  digits.svg         the picture: the metrics of all eight models
  quickstart.html    the notebook with its results, for any browser: {(DEMO / "quickstart.html").as_uri()}
  quickstart.ipynb   the same as a notebook
  outlast-runs       the run: checkpoints, metrics, trained models
Try it yourself in JupyterLab: make lab""")


if __name__ == "__main__":
    main()
