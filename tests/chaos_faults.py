"""The faults of the chaos test. Each says whether there was something to hurt."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import chaos_checks as checks
from chaos_plan import RUN, Fault


def _pick(found: list, part: float):
    return found[int(part * len(found))]


def _kill_worker(r, fault: Fault) -> bool:
    pid = r.await_worker()
    r.signal(signal.SIGKILL, pid)
    return bool(pid)


def _kill_supervisor(r, fault: Fault) -> bool:
    pid = r.supervisor()
    r.signal(signal.SIGKILL, pid)
    r.gone(pid)
    return bool(pid)


def _watcher(r) -> int:
    if r.kernel is not None:
        return r.kernel[0].provisioner.pid
    return r.finder.pid if r.finder and r.finder.poll() is None else 0


def _kill_finder(r, fault: Fault) -> bool:
    pid, before = _watcher(r), r.supervisor()
    if not pid:
        return False
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    time.sleep(fault.pause)
    after = r.supervisor()
    if (before and after not in (before, 0)) or (before and not after and r.status()["state"] == "paused"):
        raise checks.ViolationError("the run has died with who watched it")
    return True


def _kill_all(r, fault: Fault) -> bool:
    r.kill_all()
    return True


def _kill_server(r, fault: Fault) -> bool:
    servers = [p for p in _children(r.supervisor()) if p != r.worker()]
    r.signal(signal.SIGKILL, *servers)
    return bool(servers)


def _children(pid: int) -> list[int]:
    if not pid:
        return []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(p) for t in tasks for p in (t / "children").read_text().split()]
    except OSError:
        return []


def _everybody(r, who: str) -> list[int]:
    return {"all": lambda: checks.marked(r.mark), "worker": lambda: [r.await_worker()]}.get(
        who, lambda: [r.supervisor()]
    )()


def _stopping(who: str, then: int) -> Callable:
    def stop(r, fault: Fault) -> bool:
        everybody = _everybody(r, who)
        pids = [p for p in everybody if p]
        r.halves(pids, fault, then)
        if then == signal.SIGKILL and who != "worker":
            for pid in pids:
                if r.finder is not None and pid == r.finder.pid:
                    r.finder.wait(10)
                r.gone(pid)
        return bool(pids)

    return stop


def _terminating(who: str) -> Callable:
    def term(r, fault: Fault) -> bool:
        if who == "finder":
            pid, before = _watcher(r), r.supervisor()
            if r.kernel is not None or not pid:
                return False
            r.signal(signal.SIGTERM, pid)
            r.finder.wait(60)
            r.gone(before)
            return True
        before = r.supervisor()
        everybody = _everybody(r, who)
        pids = [p for p in everybody if p]
        r.signal(signal.SIGTERM, *pids)
        if who != "worker":
            r.gone(before)
        return bool(pids)

    return term


def _interrupt_twice(r, fault: Fault) -> bool:
    pid, before = _watcher(r), r.supervisor()
    if r.kernel is not None or not pid or not before:
        return False
    r.signal(signal.SIGINT, pid)
    time.sleep(min(fault.pause, 0.2))
    r.signal(signal.SIGINT, pid)
    r.finder.wait(60)
    r.gone(before)
    return True


def _wipe(r, fault: Fault) -> bool:
    """A fresh machine: nothing is left but the store."""
    if not (r.store / RUN / "run.json").exists():
        return False  # a store without a plan brings nothing back, and says so
    with r.watch.blind():
        r.kill_all()
        shutil.rmtree(r.data)
        r.wiped += 1
        r.start("resume", fault.detach)
    return True


def _damage_file(path: Path, how: str) -> None:
    mode = path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 0x10
    elif how == "truncate":
        content = content[: len(content) * 2 // 3]
    else:
        content = b""
    path.write_bytes(content)
    path.chmod(mode)


def _sealed(model: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a model by step, the newest last; in a store, of one step the one saved last."""
    found = [p.parent for p in (model / "checkpoints").glob("*/manifest.json")]
    numbers = [(tuple(map(int, p.name.split("."))), p) for p in found if p.name.replace(".", "", 1).isdigit()]
    return [(number[0], path) for number, path in sorted(numbers)]


def _damage(r, fault: Fault) -> bool:
    """Damages the newest checkpoint of the model that is next to go on."""

    def unfinished() -> str | None:
        return next((m for m in r.names if _sealed(r.data / RUN / "models" / m) and not _final(r, m)), None)

    r.soon(unfinished)
    r.kill_all()
    hit = unfinished()
    if hit is None:
        return False
    step, folder = _sealed(r.data / RUN / "models" / hit)[-1]
    _hit(r, fault, hit, step, folder)
    return True


def _final(r, model: str) -> Path | None:
    path = r.data / RUN / "models" / model / "final"
    return path if (path / "manifest.json").exists() else None


def _hit(r, fault: Fault, model: str, step: int, folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    victim = _pick(files, fault.pick)
    _damage_file(victim, fault.damage)
    r.watch.forget(model)
    stored = r.store in victim.parents
    r.damaged.append(
        {
            "model": model,
            "step": step,
            "file": victim,
            "how": fault.damage,
            "content": victim.read_bytes(),
            "store": stored,
            "result": folder.name == "final",
            "ledger": checks.ledger_length(r),
            "wiped": r.wiped,
            "told": stored,
        }
    )


def _damage_result(r, fault: Fault) -> bool:
    """Damages a finished model, while others still have to be trained."""
    r.kill_all()
    finished = [m for m in r.names if _final(r, m)]
    if not finished or len(finished) >= len(r.names) - 1:
        return False
    hit = _pick(finished, fault.pick)
    step = _step(_final(r, hit))
    _hit(r, fault, hit, step, _final(r, hit))
    return True


def _damage_store(r, fault: Fault) -> bool:
    """A fresh machine, and the best copy of a model is damaged: of one in the middle, else of one that is done."""
    models = r.store / RUN / "models"

    def victims() -> list[tuple[str, int, Path]]:
        if not (r.store / RUN / "run.json").exists():
            return []
        done = [p.parent for p in models.glob("*/final/manifest.json")]
        begun = [
            (m, *_sealed(models / m)[-1]) for m in r.names if _sealed(models / m) and models / m / "final" not in done
        ]
        return begun or [(p.parent.name, _step(p), p) for p in done]

    if not r.soon(victims):
        return False
    with r.watch.blind():
        r.kill_all()
        found = victims()
        if found:
            _hit(r, fault, *_pick(found, fault.pick))
        shutil.rmtree(r.data)
        r.wiped += 1
        r.start("resume", fault.detach)
    return bool(found)


def _step(folder: Path) -> int:
    return json.loads((folder / "manifest.json").read_text())["step"]


def _full(r, fault: Fault) -> bool:
    """Fills the disk, to the last byte, and empties it again after a while."""
    if not os.path.ismount(r.disk):
        return False
    ballast = r.disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while file.write(b"\0" * (1 << 16)):
                pass
    except OSError:
        pass
    try:
        time.sleep(0.5 + 4 * fault.pause)
        if fault.pick < 0.3:  # and it dies, too
            r.kill_all()
    finally:
        ballast.unlink()
    return True


HANDLERS: dict[str, Callable[..., bool]] = {
    "kill worker": _kill_worker,
    "kill supervisor": _kill_supervisor,
    "kill finder": _kill_finder,
    "kill all": _kill_all,
    "kill server": _kill_server,
    "stop worker": _stopping("worker", signal.SIGCONT),
    "stop worker, kill": _stopping("worker", signal.SIGKILL),
    "stop supervisor": _stopping("supervisor", signal.SIGCONT),
    "stop supervisor, kill": _stopping("supervisor", signal.SIGKILL),
    "stop all, kill": _stopping("all", signal.SIGKILL),
    "term worker": _terminating("worker"),
    "term supervisor": _terminating("supervisor"),
    "term finder": _terminating("finder"),
    "term all": _terminating("all"),
    "interrupt finder twice": _interrupt_twice,
    "wipe": _wipe,
    "damage": _damage,
    "damage result": _damage_result,
    "damage store": _damage_store,
    "full": _full,
}
