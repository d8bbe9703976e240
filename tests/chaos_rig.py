"""A run under attack: how it is started, hurt, and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import chaos_checks as checks
import chaos_faults
import rig
from chaos_checks import MARK, ViolationError, marked
from chaos_plan import BROKEN, EFFECTIVE, EVERY, RUN, TRAIN, Fault, Schedule, models

PATIENCE = 45  # seconds without any progress that mean that a run is stuck
DISK = "48m"


def write_plan(folder: Path, with_torch: bool) -> Path:
    """Writes the plan and its script, and returns the plan's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(TRAIN)
    plan = {"run": RUN, "script": "train.py", "effective_batch": EFFECTIVE, "models": models(with_torch)}
    (folder / "plan.yaml").write_text(json.dumps(plan))  # which is YAML, too
    return folder / "plan.yaml"


@dataclass(frozen=True)
class Campaign:
    """What all rounds share."""

    reference: dict[str, str]  # digests of a run that nothing has disturbed
    cache: Path
    kernels: Path | None  # folder of kernelspecs; without one nothing is started in notebooks


class Round:
    """One run of the plan in folders of its own, with a schedule of faults."""

    def __init__(self, schedule: Schedule, folder: Path, campaign: Campaign) -> None:
        self.schedule, self.folder, self.campaign = schedule, folder, campaign
        self.kernels, cache = campaign.kernels, campaign.cache
        self.plan = write_plan(folder / "plan", schedule.torch)
        self.disk, self.store = folder / "disk", folder / "store"
        self.data = self.disk / "data"
        self.temp = folder / "tmp"
        for made in (self.disk, self.temp):
            made.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex
        here = {MARK: self.mark, "TMPDIR": str(self.temp), "XDG_CACHE_HOME": str(cache)}
        self.env = rig.environment(**here)
        self.unmarked = rig.environment(XDG_CACHE_HOME=str(cache), TMPDIR=str(self.temp))
        self.names = [m["name"] for m in models(schedule.torch)]
        self.finder: subprocess.Popen | None = None
        self.kernel = None
        self.said = folder / "said.txt"  # by all finders
        self.done: Counter[str] = Counter()
        self.damaged: list[dict] = []
        self.wiped = 0
        self.watch = checks.Watch(self)
        self.over = False  # a fault has ended the supervisor, so that someone has to resume

    # How it is started.

    def start(self, how: str, detach: bool) -> None:
        """Starts or goes on, as users do."""
        self.forget_finder()
        before = self.generation()
        flags = ["--dir", str(self.data)]
        if how == "resume" and not (self.data / RUN / "run.json").exists():
            flags += ["--store", str(self.store)]
        if how in ("train", "kernel"):
            flags += ["--store", str(self.store), "--checkpoint-every", f"{EVERY}steps"]
            flags += ["--parallel", self.schedule.parallel]
        if how == "kernel" and self.kernels is not None:
            self.in_a_kernel(f"%train {self.plan} {' '.join(flags)}")
        else:
            self.command("resume" if how == "resume" else "train", how, flags, detach)
        self.over = False
        self.wait("a supervisor", lambda: self.generation() > before, 60)

    def command(self, verb: str, how: str, flags: list[str], detach: bool) -> None:
        what = [RUN] if how == "resume" else [str(self.plan)]
        args = [str(rig.BINARY), verb, *what, *flags, *(["--detach"] if detach else [])]
        with self.said.open("ab") as said:
            said.write(f"$ {' '.join(args[1:])}\n".encode())
            said.flush()
            self.finder = subprocess.Popen(
                args, env=self.env, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True
            )
        if detach and self.finder.wait(120) != 0:
            raise ViolationError(f"{args[1:]} ended with {self.finder.returncode}")

    def in_a_kernel(self, cell: str) -> None:
        from jupyter_client.manager import KernelManager

        manager = KernelManager(kernel_name="outlast")
        manager.kernel_spec_manager.kernel_dirs = [str(self.kernels)]
        manager.start_kernel(env=self.env, cwd=str(self.folder))
        self.kernel = (manager, manager.blocking_client())
        client = self.kernel[1]
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute(cell)

    def forget_finder(self) -> None:
        """Has whoever watched the last start gone: a new one comes."""
        if self.kernel is not None:
            manager, client = self.kernel
            client.stop_channels()
            if manager.is_alive():
                os.killpg(os.getpgid(manager.provisioner.pid), signal.SIGKILL)
            manager.shutdown_kernel(now=True)
            self.kernel = None
        if self.finder is not None:
            if self.finder.poll() is None:
                self.finder.kill()
            self.finder.wait(30)
            self.finder = None

    # What is known of it.

    def plan_models(self) -> list[dict]:
        """The models as the plan has them."""
        return models(self.schedule.torch)

    def state(self) -> dict | None:
        """The run's state as it was last published; None if there is none."""
        try:
            return json.loads((self.data / RUN / "state.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def generation(self) -> int:
        """How many supervisors the run has had."""
        return (self.state() or {"generation": 0})["generation"]

    def status(self) -> dict:
        """What `outlast status --json` says."""
        return json.loads(rig.outlast("status", RUN, "--dir", self.data, "--json", env=self.unmarked).stdout)

    def progress(self) -> int:
        """Steps completed, of all models."""
        state = self.state()
        return sum(m["step"] for m in state["models"]) if state else 0

    def wait(self, what: str, probe: Callable[[], object], seconds: float) -> object:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := probe():
                return found
            time.sleep(0.02)
        raise ViolationError(f"waited {seconds:.0f} s in vain for {what}")

    def supervisor(self) -> int:
        """The supervisor that works, or 0."""
        state = self.state() or {}
        pid = state.get("supervisor_pid", 0)
        return pid if pid and rig.alive(pid) and pid in marked(self.mark) else 0

    def worker(self) -> int:
        """A worker that works, or 0."""
        pids = [m["worker_pid"] for m in (self.state() or {"models": []})["models"] if m["worker_pid"]]
        return next((p for p in pids if rig.alive(p) and p in marked(self.mark)), 0)

    def await_worker(self) -> int:
        """The next worker that works; 0 if none comes."""
        return self.soon(self.worker) or 0

    def soon(self, probe: Callable[[], object]) -> object:
        """What probe finds within two seconds; it need not."""
        try:
            return self.wait("something", probe, 2)
        except ViolationError:
            return None

    def await_progress(self, steps: int) -> bool:
        """Waits for so many steps more; false if the run comes to rest before."""
        goal, last, since = self.progress() + steps, -1, time.monotonic()
        while (now := self.progress()) < goal:
            if now != last:
                last, since = now, time.monotonic()
            if not self.supervisor() and self.status()["state"] != "running":
                return False
            if time.monotonic() - since > PATIENCE:
                self.signal(signal.SIGQUIT, self.supervisor())  # what it does stands in its log then
                self.gone(self.supervisor())
                raise ViolationError(f"no progress for {PATIENCE} s")
            time.sleep(0.01)
        return True

    # What is done to it.

    def signal(self, number: int, *pids: int) -> None:
        for pid in pids:
            if pid:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue

    def kill_all(self) -> None:
        """SIGKILL for everything, until nothing is left."""
        while pids := marked(self.mark):
            self.signal(signal.SIGKILL, *pids)
            if self.finder is not None and self.finder.pid in pids:
                self.finder.wait(10)
        self.over = True

    def gone(self, pid: int) -> None:
        if pid:
            self.wait("a process to end", lambda: not rig.alive(pid), 60)
            self.over = True

    def wait_no_process(self) -> None:
        """Waits until all that was started has ended."""
        try:
            self.wait("all processes to end", lambda: not marked(self.mark), 15)
        except ViolationError:
            left = [Path(f"/proc/{p}/cmdline").read_bytes().replace(b"\0", b" ") for p in marked(self.mark)]
            raise ViolationError(f"processes are left: {left}") from None

    def halves(self, pids: list[int], fault: Fault, then: int) -> None:
        self.signal(signal.SIGSTOP, *pids)
        time.sleep(fault.pause)
        self.signal(then, *pids)

    def apply(self, fault: Fault) -> None:
        """Does what the fault says."""
        name = "nothing: nobody was there"
        if chaos_faults.HANDLERS[fault.kind](self, fault):
            name = fault.kind
        self.done[name] += 1

    def go(self) -> None:
        """The whole round: faults, then peace, then all invariants."""
        s = self.schedule
        try:
            self.start(s.first, s.detach)
            with self.watch.running():
                for fault in s.faults:
                    if not self.await_progress(fault.after):
                        break
                    time.sleep(fault.jitter)
                    self.apply(fault)
                    self.go_on(fault)
                self.finish()
            checks.everything(self, self.campaign.reference)
        finally:
            self.forget_finder()
            self.kill_all()

    def go_on(self, fault: Fault) -> None:
        """Resumes if the fault has ended the supervisor, and not otherwise."""
        if not self.over:
            return
        self.wait("the supervisor's end", lambda: not self.supervisor(), 60)
        self.start(fault.resume, fault.detach)
        if fault.kind in ("damage", "damage result") and self.damaged and not self.damaged[-1]["told"]:
            self.damaged[-1]["told"] = True
            self.wait("its word on what was damaged", lambda: checks.noticed(self, self.damaged[-1]), 30)

    def finish(self) -> None:
        """Lets it come to rest. Only a fault may have paused it."""

        def at_rest() -> bool:
            return not self.await_progress(1 << 30)

        at_rest()
        self.wait("its processes to end", lambda: not marked(self.mark) or self.kernel or self.supervisor(), 60)
        status = self.status()
        if status["state"] not in ("failed", "done"):
            raise ViolationError(f"it came to rest as {status['state']}: {status.get('notes')}")
        self.forget_finder()
        last = rig.outlast("resume", RUN, "--dir", self.data, env=self.env, check=False)
        with self.said.open("a") as said:
            said.write(f"$ resume, at the end: {last.returncode}\n{last.stdout}{last.stderr}")
        if last.returncode != 1:
            raise ViolationError(f"the last resume ended with {last.returncode}, though {BROKEN} cannot be trained")


@contextmanager
def small_disk(at: Path) -> Iterator[str]:
    """Puts a small disk at a folder; says why not, if that is not possible."""
    why = ""
    if os.geteuid() != 0:
        why = "only root can mount a disk of its own"
    elif not shutil.which("mount"):
        why = "there is no mount here"
    else:
        at.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "outlast-chaos", at], capture_output=True, text=True
        )
        why = done.stderr.strip() if done.returncode else ""
    try:
        yield why
    finally:
        if not why:
            subprocess.run(["umount", "-l", at], check=False)


def reference(folder: Path, cache: Path) -> dict[str, str]:
    """The digests of a run of all models that nothing disturbs."""
    plan = write_plan(folder / "plan", True)
    env = rig.environment(XDG_CACHE_HOME=str(cache))
    args = [str(rig.BINARY), "train", str(plan), "--dir", str(folder / "data"), "--checkpoint-every", f"{EVERY}steps"]
    subprocess.run(args, env=env, capture_output=True, timeout=240, check=False)
    return checks.digests(folder / "data", env)
