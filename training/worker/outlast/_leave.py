"""The end of a process that was forked, without taking apart what it shares with others.

Python ends by freeing everything. In a fork that means to copy hundreds of
megabytes first, in order to free them: half a second between two models.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import os
import sys
import threading
from typing import NoReturn

# Text before bytes: what one has goes to the other.
WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def leave(status: object) -> NoReturn:
    """Ends this process with what sys.exit was given, once all that a program may rely on has been done."""
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as multiprocessing does
    atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):  # from here on Python prints what goes wrong, and goes on
        vars(sys.modules["__main__"]).clear()
        gc.collect()
    flush()
    os._exit(int(status or 0) & 0xFF)


def flush() -> None:
    """Writes out what is in buffers: also in files that nobody closed."""
    things = [thing for thing in gc.get_objects() if type(thing) in WRITERS]
    things.sort(key=lambda thing: WRITERS.index(type(thing)))
    for thing in (sys.stdout, sys.stderr, *things):
        with contextlib.suppress(Exception):
            thing.flush()
    ctypes.CDLL(None).fflush(None)
