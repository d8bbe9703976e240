"""Events for the supervisor: JSON lines on a descriptor of their own.

Never on stdout, which belongs to the user's prints.
"""

from __future__ import annotations

import json
import math
import os
import threading
from typing import Any

PROTOCOL = 1

# Exit status when nobody reads the events any more (EX_IOERR): the supervisor
# is gone, and a worker without one must not go on.
ORPHANED = 74

_encode = json.JSONEncoder(allow_nan=False).encode


def plain(value: Any) -> Any:
    """Gives a float that JSON lacks (nan, inf) the form of a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


class Events:
    """Writes events; silent if there is nobody to write to.

    Safe for use from several threads. A forked child (a data loader's worker)
    stays silent: the events are this process's.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._held: list[tuple[str, dict[str, Any]]] = []
        if fd is not None:
            os.set_inheritable(fd, False)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._fall_silent)

    def _fall_silent(self) -> None:
        self._fd = None
        self._lock = threading.Lock()  # another thread may have had it
        self._held.clear()

    def send(self, event: str, **fields: Any) -> None:
        """Writes one event, behind those that were held."""
        if self._fd is not None:
            with self._lock:
                self._held.append((event, fields))
                self._write()

    def hold(self, event: str, **fields: Any) -> None:
        """Keeps one event for the next one that is sent; the fields must not change until then.

        A write wakes the supervisor, which costs a step of a small model more
        than the metrics that it brings.
        """
        if self._fd is not None:
            with self._lock:
                self._held.append((event, fields))

    def flush(self) -> None:
        """Writes what is held."""
        if self._fd is not None:
            with self._lock:
                self._write()

    def _write(self) -> None:
        data = "".join(_line(event, fields) for event, fields in self._held).encode()
        self._held.clear()
        try:
            while data:
                data = data[os.write(self._fd, data) :]  # type: ignore[arg-type]  # not silent
        except OSError:
            os._exit(ORPHANED)


def _line(event: str, fields: dict[str, Any]) -> str:
    fields = {"event": event, **fields}
    try:
        return _encode(fields) + "\n"
    except ValueError:  # nan or inf
        return _encode(plain(fields)) + "\n"
