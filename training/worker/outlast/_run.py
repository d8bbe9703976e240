"""Runs the code of one attempt: a notebook's cells, or a script."""

from __future__ import annotations

import json
import linecache
import os
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from . import _job

HERE = str(Path(__file__).parent)


def main(path: str) -> int:
    """Runs the job that path describes; returns the exit status."""
    os.environ["OUTLAST_JOB"] = path
    code = json.loads(Path(path).read_text())["code"]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    job = _job.job()
    files = [*code["shared"], code["path"]]
    if code["kind"] == "script":
        sys.argv = [code["path"]]
        sys.path.insert(0, str(Path(code["path"]).parent))
    else:
        module.job = job  # type: ignore[attr-defined]
        sys.path.insert(0, os.getcwd())
    try:
        for file in files:
            execute(Path(file), module.__dict__)
        if not job._finished:
            job.finish()
    except SystemExit as end:
        if end.code in (None, 0) and not job._finished:
            job.finish()
        raise
    except BaseException as error:  # whatever the user's code raised
        report(job, error)
        return 1
    return 0


def execute(file: Path, namespace: dict[str, Any]) -> None:
    """Runs one file in namespace."""
    namespace["__file__"] = str(file)
    exec(compile(file.read_text(), str(file), "exec"), namespace)


def message(error: BaseException) -> str:
    """What error says, within the length of an event."""
    try:
        return str(error)[:16_000]
    except Exception:  # the user's own __str__
        return "<exception str() failed>"


def report(job: _job.Job, error: BaseException) -> None:
    """Says what the user's code raised, without our own frames around it."""
    linecache.checkcache()
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(HERE):
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb))
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
    job._events.send(
        "failed",
        kind="user",
        type=type(error).__name__,
        message=message(error),
        traceback=text[-16_000:],
    )
