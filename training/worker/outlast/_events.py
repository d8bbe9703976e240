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
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: list[str] = []
        if fd is not None:
            os.set_inheritable(fd, False)

    def send(self, event: str, **fields: Any) -> None:
        """Writes one event, behind those that were held."""
        if not self._silent():
            with self._lock:
                self._held.append(_line(event, fields))
                self._write()

    def hold(self, event: str, **fields: Any) -> None:
        """Keeps one event for the next one that is sent.

        A write wakes the supervisor, which costs a step of a small model more
        than the metrics that it brings.
        """
        if not self._silent():
            with self._lock:
                self._held.append(_line(event, fields))

    def flush(self) -> None:
        """Writes what is held."""
        if not self._silent():
            with self._lock:
                self._write()

    def _silent(self) -> bool:
        return self._fd is None or os.getpid() != self._pid

    def _write(self) -> None:
        data = "".join(self._held).encode()
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
