"""Runs the code of one attempt: a notebook's cells, or a script."""

from __future__ import annotations

import json
import linecache
import os
import sys
import types
from pathlib import Path
from typing import Any

from . import _failure, _start
from ._job import Job

HERE = str(Path(__file__).parent)


def main(path: str) -> int:
    """Runs the job that path describes; returns the exit status."""
    os.environ["OUTLAST_JOB"] = path
    code = json.loads(Path(path).read_text())["code"]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    job = _start.job()
    job._managed = True
    files = [*code["shared"], code["path"]]
    if code["kind"] == "script":
        sys.argv = [code["path"]]
        sys.path.insert(0, str(Path(code["path"]).parent))
    else:
        module.job = job  # type: ignore[attr-defined]
        sys.path.insert(0, os.getcwd())
    try:
        return _run(job, files, module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:  # whatever the user's code raised
        return report(job, error, code["shared"])


def _run(job: Job, files: list[str], namespace: dict[str, Any]) -> int:
    status = None
    try:
        for file in files:
            execute(Path(file), namespace)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
        status = end
    if not job._finished:
        job.finish()
    if status is not None:
        raise status
    return 0


def execute(file: Path, namespace: dict[str, Any]) -> None:
    """Runs one file in namespace."""
    namespace["__file__"] = str(file)
    exec(compile(file.read_text(), str(file), "exec"), namespace)


def report(job: Job, error: BaseException, shared: list[str]) -> int:
    """Says what the user's code raised, without our own frames around it; returns the exit status."""
    linecache.checkcache()
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(HERE):
        tb = tb.tb_next
    file = tb.tb_frame.f_code.co_filename if tb else getattr(error, "filename", None)  # that of a SyntaxError
    where = ""
    if file in shared:
        where = (
            f" (in cell {shared.index(file) + 1} of {len(shared)} of %%shared, which every worker runs first;"
            " '%%shared --reset' forgets them all)"
        )
    failed = _failure.describe(error, tb, where)
    sys.stdout.flush()
    sys.stderr.write(failed["traceback"])
    sys.stderr.flush()
    job._events.send("failed", **failed)
    return _failure.STATUS[failed["kind"]]
