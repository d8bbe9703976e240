"""Where a worker lays its checkpoints down: in memory where there is room, else on disk."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worker_rig
from outlast import _files, _room, _stage
from outlast._job import Job

torch = pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the machine have memory, whatever else it does."""
    monkeypatch.setattr(_room, "fits", lambda *_: True)


def job(folder: Path, **changes: Any) -> tuple[Job, worker_rig.Recorder]:
    """A job whose memory is a folder as well."""
    (folder / "memory").mkdir(parents=True)
    events = worker_rig.Recorder()
    return Job(worker_rig.spec(folder, memory_staging=str(folder / "memory"), **changes), events), events


def handed_over(events: worker_rig.Recorder) -> list[Path]:
    """Where the checkpoints lie that were handed over."""
    return [Path(e["path"]) for e in events.events if e["event"] == "checkpoint"]


@pytest.mark.usefixtures("roomy")
def test_what_is_handed_over_lies_in_memory(tmp_path: Path) -> None:
    made, events = job(tmp_path)
    made.track(w={"w": torch.arange(5)})
    for _ in made.steps(3):
        made.save()
    made.finish()
    folders = handed_over(events)
    assert [f.parent.name for f in folders] == ["memory"] * 3
    for folder in folders:
        assert sorted(p.name for p in folder.iterdir()) == ["outlast.json", "w.pt"]
        assert torch.equal(torch.load(folder / "w.pt")["w"], torch.arange(5))
    assert not (tmp_path / "staging").exists(), "nothing was written to the disk"


@pytest.mark.usefixtures("roomy")
def test_a_checkpoint_is_written_over_one_that_was_saved(tmp_path: Path) -> None:
    """The memory is the same; what it held before does not show, not even behind the end of what is shorter."""
    made, events = job(tmp_path)
    state = {"w": torch.arange(100_000)}
    made.track(w=state, other={"x": torch.zeros(3)})
    for n, length in enumerate((100_000, 10, 200_000)):
        state["w"] = torch.arange(length) + n
        made.save()
        os.rename(handed_over(events)[-1], tmp_path / "memory" / _stage.SPARE)
    del made._tracked["other"]
    made.save()
    last = handed_over(events)[-1]
    assert sorted(p.name for p in last.iterdir()) == ["outlast.json", "w.pt"]
    assert torch.equal(torch.load(last / "w.pt")["w"], torch.arange(200_000) + 2)


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize("length", [10, 1000, 5000])
def test_the_memory_is_used_again(length: int, tmp_path: Path) -> None:
    made, events = job(tmp_path)
    state = {"w": torch.zeros(1000)}
    made.track(w=state)
    made.save()
    first = handed_over(events)[0]
    inode = (first / "w.pt").stat().st_ino
    first.rename(tmp_path / "memory" / _stage.SPARE)
    state["w"] = torch.ones(length)
    made.save()
    second = handed_over(events)[1]
    assert (second / "w.pt").stat().st_ino == inode
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    _files.save(fresh, "w", state)
    assert (second / "w.pt").stat().st_size == (fresh / "w.pt").stat().st_size
    assert torch.equal(torch.load(second / "w.pt")["w"], torch.ones(length))
    assert sorted(p.name for p in (tmp_path / "memory").iterdir()) == [second.name]


def test_without_room_it_is_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, events = job(tmp_path)
    made.track(w={"w": torch.zeros(1000)})
    asked: list[int] = []
    monkeypatch.setattr(_room, "fits", lambda _, size: bool(asked.append(size)))
    (tmp_path / "memory" / _stage.SPARE).mkdir()
    made.save()
    made.save()
    assert [f.parent.name for f in handed_over(events)] == ["staging"] * 2
    assert asked[0] == 4000, "the first is as large as what is tracked"
    assert asked[1] == _stage.size_of(handed_over(events)[0]), "then it is known"
    assert list((tmp_path / "memory").iterdir()) == [], "the machine gets its memory back"


@pytest.mark.usefixtures("roomy")
def test_a_trainers_first_checkpoint_is_for_the_disk(tmp_path: Path) -> None:
    made, events = job(tmp_path)
    made._trainer = type("Trainer", (), {"write": lambda *_: None, "state": None})()
    made.save()
    made.save()
    assert [f.parent.name for f in handed_over(events)] == ["staging", "memory"], "nobody knew its size"


def test_the_size_is_known_from_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "x").write_bytes(b"1" * 500)
    asked: list[int] = []
    monkeypatch.setattr(_room, "fits", lambda _, size: bool(asked.append(size)))
    made, _ = job(tmp_path / "job", checkpoint={"step": 1, "path": str(before)})
    made.save()
    assert asked == [500]


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file x")],
    ids=["system", "torch"],
)
def test_memory_that_is_full_after_all(error: Exception, tmp_path: Path) -> None:
    """It is written to the disk then, whole, and nothing is said of it."""
    events = worker_rig.Recorder()
    (tmp_path / "memory").mkdir()
    stage = _stage.Stage(tmp_path / "staging", events, tmp_path / "memory", 1)

    def fill(folder: Path) -> dict[str, Any]:
        (folder / "w").write_text("w")
        if folder.parent.name == "memory":
            raise error
        return {"step": 1}

    assert stage.put(1, "final", fill)
    (folder,) = handed_over(events)
    assert folder.parent.name == "staging"
    assert json.loads((folder / "outlast.json").read_text()) == {"step": 1}
    assert [e["event"] for e in events.events] == ["checkpoint"]
    assert list((tmp_path / "memory").iterdir()) == []


@pytest.mark.usefixtures("roomy")
def test_memory_that_somebody_tidied_up(tmp_path: Path) -> None:
    made, events = job(tmp_path)
    (tmp_path / "memory").rmdir()
    made.save()
    assert handed_over(events)[0].parent.name == "staging"
    assert not (tmp_path / "memory").exists(), "it is nobody's now: it would never be swept"


@pytest.mark.usefixtures("roomy")
def test_what_no_file_can_hold_is_an_error_at_once(tmp_path: Path) -> None:
    events = worker_rig.Recorder()
    (tmp_path / "memory").mkdir()
    stage = _stage.Stage(tmp_path / "staging", events, tmp_path / "memory", 1)
    tried: list[Path] = []

    def fill(folder: Path) -> dict[str, Any]:
        tried.append(folder)
        raise TypeError("no file")

    with pytest.raises(TypeError):
        stage.put(1, "due", fill)
    assert len(tried) == 1


def test_a_real_memory_of_too_little_room(tmp_path: Path) -> None:
    """The worker asks for twice what it needs; where it was told wrong, it takes the disk."""
    mount = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    probe = subprocess.run([*mount, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mounts of our own here: {probe.stderr.decode().strip()}")
    memory = tmp_path / "memory"
    memory.mkdir()
    script = f'mount -t tmpfs -o size=600k none {memory} && exec "$@"'
    source = (
        "import torch\nfrom outlast import _room\nif job.params['believes']: _room.fits = lambda *_: True\n"
        "weights = {'w': torch.zeros(10)}\njob.track(weights=weights)\n"
        "for step in job.steps(4):\n    weights['w'] = torch.zeros((10, 100_000, 200_000, 10)[step])\n"
    )
    for believes in (False, True):
        wrap = [*mount, "sh", "-c", script, "sh", sys.executable]
        worker = worker_rig.Worker(
            tmp_path / str(believes),
            source,
            python=wrap,
            memory_staging=str(memory),
            checkpoint_every={"steps": 1},
            params={"believes": believes},
        )
        try:
            ended = worker.ended()
        finally:
            worker.kill()
        places = [Path(e["path"]).parent.name for e in ended.all("checkpoint")]
        assert len(places) == 4, str(ended)
        assert places[2] == "staging", "800 kB do not go into 600"
        assert ended.all("note") == []
        assert ended.status == 0


Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes the files by which a machine says what memory it has, all in MiB."""
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 0, 0, 1 << 20, 0, 0, 0, 0, 0)))

    def make(free: int, total: int, groups: str = "") -> Path:
        proc = tmp_path / "root" / "proc"
        (proc / "self").mkdir(parents=True)
        (proc / "meminfo").write_text(f"MemTotal: {total << 10} kB\nMemAvailable: {free << 10} kB\n")
        (proc / "self" / "cgroup").write_text(groups)
        return tmp_path / "root"

    return make


MIB = 1 << 20


def test_room_on_a_machine(machine: Machine, tmp_path: Path) -> None:
    root = machine(free=1000, total=4000)
    assert _room.fits(tmp_path, 250 * MIB, root), "twice 250, and 500 that stay free"
    assert not _room.fits(tmp_path, 251 * MIB, root)
    assert not _room.fits(tmp_path, 9 * MIB, tmp_path / "none"), "where it cannot be told, it is not tried"
    assert _room.fits(tmp_path, 8 * MIB, tmp_path / "none"), "it is too small to matter"


def test_room_within_a_limit_of_version_2(machine: Machine, tmp_path: Path) -> None:
    root = machine(100_000, 200_000, "0::/pod/box\n")
    box, pod = root / "sys/fs/cgroup/pod/box", root / "sys/fs/cgroup/pod"
    box.mkdir(parents=True)
    (box / "memory.max").write_text("max\n")
    assert _room.fits(tmp_path, 1000 * MIB, root)
    (pod / "memory.max").write_text(f"{800 * MIB}\n")
    (pod / "memory.current").write_text(f"{700 * MIB}\n")
    (pod / "memory.stat").write_text(f"anon 5\nfile {500 * MIB}\ninactive_file {300 * MIB}\n")
    assert _room.fits(tmp_path, 150 * MIB, root), "400 are free, of which 100 stay so"
    assert not _room.fits(tmp_path, 151 * MIB, root)


def test_room_within_a_limit_of_version_1_seen_from_inside(machine: Machine, tmp_path: Path) -> None:
    root = machine(100_000, 200_000, "7:blkio:/x\n4:memory:/docker/abc\n0::/\n")
    top = root / "sys/fs/cgroup/memory"
    top.mkdir(parents=True)
    (top / "memory.limit_in_bytes").write_text(f"{800 * MIB}\n")
    (top / "memory.usage_in_bytes").write_text(f"{500 * MIB}\n")
    (top / "memory.stat").write_text("total_inactive_file 0\n")
    assert _room.fits(tmp_path, 100 * MIB, root)
    assert not _room.fits(tmp_path, 101 * MIB, root)
    (top / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert _room.fits(tmp_path, 101 * MIB, root), "no limit at all"


def test_room_in_a_small_folder(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(100_000, 200_000)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 0, 0, 16 << 10, 0, 0, 0, 0, 0)))
    assert _room.fits(tmp_path, 32 * MIB, root), "a container's /dev/shm has 64 MiB"
    assert not _room.fits(tmp_path, 33 * MIB, root)


def test_room_on_this_machine(tmp_path: Path) -> None:
    assert not _room.fits(tmp_path, 1 << 60)
