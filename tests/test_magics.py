"""Magics on the real kernel: what a notebook's Python sees of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

COUNT = """set -e
for step in 0 1 2; do
    outlast emit metric --step $step loss=$((3 - step))
    outlast emit progress $((step + 1)) 3
done
echo "$1 with $2"
outlast emit finish --step 3 accuracy=0.9
"""


class Notebook:
    """A kernel, and what its cells show."""

    def __init__(self, client: BlockingKernelClient, folder: Path) -> None:
        self.client, self.folder = client, folder

    def run(self, code: str, ok: bool = True) -> str:
        """Runs a cell; returns all its text, with that of its error."""
        shown: dict[str, str] = {}
        parts: list[str] = []

        def hook(message: dict) -> None:
            content = message["content"]
            kind = message["msg_type"]
            if kind == "stream":
                parts.append(content["text"])
            elif kind == "error":
                parts.append("\n".join(content["traceback"]))
            elif kind in ("display_data", "execute_result"):
                parts.append(content["data"]["text/plain"] + "\n")
            elif kind == "update_display_data":
                shown[content["transient"]["display_id"]] = content["data"]["text/plain"]

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=120, stop_on_error=False)
        text = "".join([*parts, *shown.values()])
        assert (reply["content"]["status"] == "ok") == ok, text
        return text


@contextlib.contextmanager
def opened(kernel_spec: Path, folder: Path, **extra: str) -> Iterator[Notebook]:
    """A notebook whose kernel has such an environment."""
    (folder / "count.sh").write_text(COUNT)
    manager = KernelManager(kernel_name="outlast")
    manager.kernel_spec_manager.kernel_dirs = [str(kernel_spec)]
    manager.start_kernel(env=rig.environment(**extra), cwd=str(folder))
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield Notebook(client, folder)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def notebook(kernel_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with opened(kernel_spec, tmp_path_factory.mktemp("notebook")) as book:
        yield book


@pytest.fixture(scope="module")
def counted(notebook: Notebook) -> Notebook:
    """A notebook in which the run 'counting' is done."""
    text = notebook.run("%train counting --models one,two -- bash count.sh {name} {name}")
    assert "counting: done, 2 of 2 models done" in text
    return notebook


def test_a_worker_in_a_shell_trains_from_a_notebook(counted: Notebook) -> None:
    log = (counted.folder / "outlast-runs/counting/models/two/log.txt").read_text()
    assert "two with two" in log, "names in braces are the model's"
    metrics = rig.metrics(counted.folder / "outlast-runs", "one", "counting")
    assert [(m["step"], m["loss"]) for m in metrics] == [(0, 3), (1, 2), (2, 1)]


def test_names_behind_the_dashes_are_not_the_notebooks(counted: Notebook) -> None:
    counted.run("name = 'wrong'")
    counted.run("%train leading --models one, -- bash count.sh {name} x")
    counted.run("if True:\n    %train within --models one, -- bash count.sh {name} x")
    for run in ("leading", "within"):
        log = (counted.folder / f"outlast-runs/{run}/models/one/log.txt").read_text()
        assert "one with x" in log, run


@pytest.mark.parametrize("prefix", ["", "if True:\n    "], ids=["leading", "within"])
def test_expressions_are_filled_in(counted: Notebook, prefix: str) -> None:
    counted.run("which, parts = 'counting', ['count', 'ing']")
    for line in ("%status {which}", "%status $which", "%status {parts[0]}{parts[1]}", "%status {''.join(parts)} --all"):
        assert "counting: done" in counted.run(prefix + line), line
    text = counted.run(prefix + "%status {nosuchname}", ok=False)
    assert "run {nosuchname}" in text, "an unknown name stays as it is"


def test_what_is_assigned_is_what_json_prints(counted: Notebook) -> None:
    data = counted.folder / "outlast-runs"
    text = counted.run(
        "s = %status counting\nr = %results counting\ng = %gpu_config\nimport json\nprint(json.dumps([s, r, g]))"
    )
    status, results, gpu = json.loads(text.strip().splitlines()[-1])
    assert status == rig.status(data, "counting")
    assert results == json.loads(rig.outlast("results", "counting", "--dir", data, "--json").stdout)
    assert set(gpu) == {"devices", "choice", "source"}
    assert "counting: done" in text, "it is shown too"


def test_results_write_files_where_the_notebook_is(counted: Notebook) -> None:
    below = counted.folder / "below"
    below.mkdir(exist_ok=True)
    counted.run("%cd below")
    try:
        counted.run(f"%results counting --dir {counted.folder}/outlast-runs --zip all.zip --plot curves.svg")
        assert (below / "all.zip").exists()
        assert "<svg" in (below / "curves.svg").read_text()
    finally:
        counted.run(f"%cd {counted.folder}")


def test_a_mistake_is_answered_with_the_synopsis(notebook: Notebook) -> None:
    for code in ("%status --nosuch", "if True:\n    %status --nosuch"):
        text = notebook.run(code, ok=False)
        assert "UsageError: %status: unknown flag: --nosuch" in text
        assert "Usage: %status [RUN]" in text
        assert "Traceback" not in text


def test_help_and_list(notebook: Notebook) -> None:
    listed = notebook.run("%outlast")
    for name in ("train", "status", "results", "logs", "doctor"):
        assert f"%{name}" in listed
        assert notebook.run(f"%{name} --help") == notebook.run(f"%{name}?")


def test_restart_gives_a_fresh_python_and_leaves_runs_alone(counted: Notebook) -> None:
    counted.run("x = 1")
    text = counted.run("%outlast restart")
    assert "A fresh Python has started; its variables are gone." in text
    assert "NameError" in counted.run("x", ok=False)
    assert "counting: done" in counted.run("%status counting")
    text = counted.run("if True:\n    %outlast restart", ok=False)
    assert "cannot be restarted from inside its own cell" in text


def test_a_cell_hides_a_driver_that_does_not_answer(kernel_spec: Path, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'Unable to determine the device handle for GPU' >&2\nexit 15\n")
    smi.chmod(0o755)
    (tmp_path / "tell.sh").write_text(
        'echo "hidden by [${CUDA_VISIBLE_DEVICES-nobody}]"\noutlast emit finish --step 1\n'
    )
    with opened(kernel_spec, tmp_path, OUTLAST_NVIDIA_SMI=str(smi)) as book:
        book.run("import os\nos.environ['CUDA_VISIBLE_DEVICES'] = ''")
        assert "No GPU found: training runs on the CPU" in book.run("%gpu_config")
        assert "hidden: done" in book.run("%train hidden --models one, -- bash tell.sh")
    assert "hidden by []" in (tmp_path / "outlast-runs/hidden/models/one/log.txt").read_text()
