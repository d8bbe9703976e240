"""How much memory this machine, or our container, has left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# What stays free of all memory beside a checkpoint that is laid down there, and
# as much again: the next one may be written before this one is taken away.
SPARE = 8

# Bytes that no memory is too short of: any process takes as much for itself.
SMALL = 8 << 20


def fits(folder: Path, size: int, root: Path = Path("/")) -> bool:
    """Whether a checkpoint of so many bytes may lie in folder, which is in memory.

    What lies there counts as used memory, of the machine and of a container's
    limit: beyond that the kernel would kill a process, most likely ours.
    """
    try:
        disk = os.statvfs(folder)
        if 2 * size > disk.f_bavail * disk.f_frsize:
            return False
        return size <= SMALL or all(2 * size + total // SPARE <= free for free, total in _limits(root))
    except (OSError, ValueError, KeyError):
        return False  # where it cannot be told, it is not tried


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """What is free, and of how much, for everything that bounds this process."""
    machine = _numbers(root / "proc/meminfo")  # in KiB
    total = machine["MemTotal:"] << 10
    yield machine["MemAvailable:"] << 10, total
    for folder in _groups(root):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                most = int((folder / limit).read_text())
            except (OSError, ValueError):  # another version, or "max"
                continue
            if most < total:
                used = int((folder / usage).read_text()) - _numbers(folder / "memory.stat").get(cache, 0)
                yield most - used, most


def _groups(root: Path) -> Iterator[Path]:
    """The folders of our control groups, and of those they are in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux with control groups
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = top / path.lstrip("/")
        # Within a container the path may be that of the world outside.
        yield from [group, *(p for p in group.parents if top in p.parents), top]


def _numbers(path: Path) -> dict[str, int]:
    """The keys and numbers of a file."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines()) if len(words) > 1}
