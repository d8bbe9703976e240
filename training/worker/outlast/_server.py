"""``python -m outlast._server FD FILE...`` is where workers come from that have nothing to import any more.

It imports what the program in the files imports, and waits on the socket FD
for orders. For each there is a fork of it, which becomes the worker, as a Python
of its own would have been; the next one is forked while a model trains. It never
touches the device, and sleeps otherwise. It ends with the supervisor, and its
workers with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from . import _leave, _preload, _run

PR_SET_PDEATHSIG = 1

# An order is a line of paths, and comes with the events, the log and the lock.
MOST_BYTES = 1 << 16
DESCRIPTORS = 3

# The checks of CUDA that go through its driver would initialise it.
NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"

# How long nothing is to be done before the next fork is made: one that has just
# begun needs the processors.
CALM_SECONDS = 0.25

# A machine that shuts down sends these to everybody. To end by them would be to
# end the workers, which are to save first.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(fd: int, files: list[str]) -> NoReturn:
    """Serves until the supervisor ends; in a worker, works."""
    server = Server(socket.socket(fileno=fd))
    server.prepare(files)
    order = server.serve()
    if order is None:
        os._exit(0)
    try:
        status: object = _run.main(order["job"])
    except SystemExit as end:
        status = end.code
    _leave.leave(status)


class Spare(NamedTuple):
    """A fork that waits for its order."""

    pid: int
    link: socket.socket


class Server:
    """Forks workers, and tells the supervisor how they end."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._workers: set[int] = set()
        self._spare: Spare | None = None
        self._over = False  # the supervisor has no more orders
        self._handlers: dict[int, Any] = {}
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._wake, self._alarm = os.pipe()  # rings when a worker has ended
        os.set_blocking(self._alarm, False)

    def prepare(self, files: list[str]) -> None:
        """Imports, and says whether workers may be had here."""
        for number in (*IGNORED, signal.SIGCHLD):
            self._handlers[number] = signal.getsignal(number)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        ours = NVML_CHECK not in os.environ
        if ours:
            os.environ[NVML_CHECK] = "1"
        _preload.load(files)
        if ours:
            os.environ.pop(NVML_CHECK, None)
        _preload.read_sources()
        if why := _preload.objection():
            self._say(refused=why)
            os._exit(0)
        warnings.filterwarnings("ignore", r"(?s).*multi-threaded.*fork", DeprecationWarning)  # see _preload._forkable
        gc.collect()
        gc.freeze()  # what is shared with the workers stays shared
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        self._say(ready=os.getpid())

    def serve(self) -> dict[str, Any] | None:
        """Returns None when there is nothing more to do; in a worker, what to do."""
        with selectors.DefaultSelector() as ready:
            ready.register(self._link, selectors.EVENT_READ)
            ready.register(self._wake, selectors.EVENT_READ)
            while True:
                events = ready.select(None if self._spare else CALM_SECONDS)
                if not events:
                    with contextlib.suppress(OSError):  # an order will say why not
                        if order := self._fork():
                            return order
                for key, _ in events:
                    if key.fileobj is not self._link:
                        os.read(self._wake, 512)
                        self._bury()
                    elif order := self._answer():
                        return order
                    elif self._over:
                        return None

    def _answer(self) -> dict[str, Any] | None:
        """Has a fork do what is ordered; in that, returns the order."""
        why = ""
        if not self._spare:
            try:
                if order := self._fork():
                    return order
            except OSError as error:
                why = str(error)
        data, fds, _, _ = socket.recv_fds(self._link, MOST_BYTES, DESCRIPTORS)
        self._over = not data
        if data and self._spare:
            (pid, link), self._spare = self._spare, None
            self._workers.add(pid)
            try:
                with link:
                    socket.send_fds(link, [data], fds)
                self._say(started=pid)
            except OSError as error:  # it was killed
                why = str(error)
        if data and why:
            self._say(failed=why)
        for fd in fds:
            os.close(fd)
        return None

    def _fork(self) -> dict[str, Any] | None:
        """Makes a spare; in that, returns its order."""
        # A request to pause that comes before the worker can hear it is not ignored
        # as it is here: it ends the worker once these are let through, before any work.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*IGNORED, signal.SIGCHLD))
        server = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    return self._become(theirs, server)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # the worker does so too: whoever comes first
            self._spare = Spare(pid, ours)
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _become(self, link: socket.socket, server: int) -> dict[str, Any]:
        """Waits for an order, and makes a worker of this process, as the supervisor would have started it."""
        try:
            os.setpgid(0, 0)
            self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != server:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            self._link.close()
            os.close(self._wake)
            os.close(self._alarm)
            data, fds, _, _ = socket.recv_fds(link, MOST_BYTES, DESCRIPTORS)
            if not data:  # the server has ended
                os._exit(0)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            order: dict[str, Any] = json.loads(data)
            events, log, lock = fds
            os.set_inheritable(events, True)
            os.set_inheritable(lock, True)  # what it starts is part of it
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            os.chdir(order["cwd"])
            if not getattr(sys.flags, "safe_path", False):
                sys.path[0] = os.getcwd()
            os.environ.update(order["env"], OUTLAST_EVENTS_FD=str(events))
            sys.argv = [str(Path(__file__).with_name("__main__.py")), order["job"]]
            return order
        except BaseException as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> NoReturn:
        os.write(2, f"the worker could not begin: {error!r}\n".encode())
        os._exit(1)

    def _bury(self) -> None:
        for pid in list(self._workers):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._workers.remove(pid)
                self._say(ended=pid, status=status)
        if self._spare and os.waitpid(self._spare.pid, os.WNOHANG)[0]:  # it was killed
            self._spare.link.close()
            self._spare = None

    def _say(self, **answer: Any) -> None:
        try:
            self._link.sendall(json.dumps(answer).encode())
        except OSError:  # the supervisor is gone
            os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
