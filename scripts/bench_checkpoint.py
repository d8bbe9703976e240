"""Measures what checkpoints cost a training loop; ``make bench`` calls it.

The model that is saved, in a run with a real supervisor, measures its own peers
between its saves: they take turns, so that a busy machine disturbs all.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = int(os.environ.get("OUTLAST_BENCH_MIB", "256"))
ROUNDS = int(os.environ.get("OUTLAST_BENCH_ROUNDS", "7"))

# How long a stretch of training is, with one checkpoint in it or with none, in
# seconds: far longer than the supervisor takes to save it behind the worker's
# back, far shorter than the 30 s that people leave between two.
STRETCH = 3

# The stall is the time from the end of a step that asks for a checkpoint to the
# begin of the next one; a stretch is always of as many steps.
CODE = """
import json
import os
import shutil
import time

import outlast
import torch

torch.set_num_threads({threads})
job = outlast.job()
state = torch.rand({mib} << 18)
warm = state.clone()
job.track(weights={{"weights": state}})


def timed(f):
    begun = time.perf_counter()
    f()
    return time.perf_counter() - begun


def plain():
    with open("plain.pt", "wb") as file:
        torch.save({{"weights": state}}, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.copyfile("plain.pt", "copy.pt")


def settle():  # until the supervisor has saved what it was handed, and the disk what it was given
    saved = os.path.join(os.path.dirname(job.dir), "checkpoints", str(step), "manifest.json")
    while not os.path.exists(saved):
        time.sleep(0.01)
    os.sync()
    time.sleep(0.2)


def work():
    x = torch.ones(128, 128)
    for _ in range(20):
        x = (x @ x).clamp(-1, 1)


steps = iter(job.steps(1 << 30))
step = next(steps)
for n in range({rounds} + 1):
    job.save()
    begun = time.perf_counter()
    step = next(steps)
    stall = time.perf_counter() - begun
    settle()
    figures = dict(stall=stall, fresh=timed(state.clone), warm=timed(lambda: warm.copy_(state)), plain=timed(plain))
    if n:  # the first is in memory that nobody has used before
        print("copy", json.dumps(figures), flush=True)
    else:
        print("first", json.dumps(figures), flush=True)

many = round({stretch} / min(timed(work) for _ in range(200)))
for n in range({rounds} + 1):
    took = {{}}
    for kind in ("without", "with") if n % 2 else ("with", "without"):
        begun = time.perf_counter()
        if kind == "with":
            job.save()
        for _ in range(many):
            work()
            step = next(steps)
        took[kind] = time.perf_counter() - begun
    if n:
        print("stretch", json.dumps(took), flush=True)
"""


def main() -> None:
    """Prints the ratios."""
    for threads in (1, os.cpu_count() or 1):
        with tempfile.TemporaryDirectory(prefix="outlast-bench-") as folder:
            said = outlast(Path(folder), threads)
        if threads == 1:
            stalls(said)
            print("where a core is free, as where a GPU trains:")
        else:
            print(f"where training keeps all {threads} cores busy:")
        overhead(said)


def stalls(said: dict[str, list[dict[str, float]]]) -> None:
    """Prints how long a checkpoint holds training up, beside what else there is."""
    stall, fresh, warm, plain = ([f[k] for f in said["copy"]] for k in ("stall", "fresh", "warm", "plain"))
    what = f"stall of a {MIB} MiB checkpoint"
    report(f"{what} / copy to new memory", stall, fresh, "target 1.3x: a copy of one's own is in new memory")
    report(f"{what} / copy to used memory", stall, warm, "torch.save's own checksums take several times as long")
    report(f"{what} / torch.save, fsync, copy", stall, plain)
    first = said["first"][0]
    report("the first one / copy to new memory", [first["stall"]], [first["fresh"]])


def overhead(said: dict[str, list[dict[str, float]]]) -> None:
    """Prints what a checkpoint costs in all: its stall, and what is done behind training's back."""
    with_, without = ([s[k] for s in said["stretch"]] for k in ("with", "without"))
    # The best of each: what else the machine does takes longer than what is looked for.
    lost = min(with_) - min(without)
    figures = f"{min(with_):.3f} s with it, {min(without):.3f} s without, the best of {ROUNDS}"
    print(f"  a checkpoint costs {lost:.3f} s of training  ({figures})")
    print(f"  one every 30 s, which was not waited for: {100 * lost / 30:+.2f} %  (target 1 %)", flush=True)


def report(what: str, mine: list[float], peer: list[float], why: str = "") -> None:
    """Prints one line."""
    ratio = statistics.median(a / b for a, b in zip(mine, peer, strict=True))
    figures = f"{statistics.median(mine):.3f} s / {statistics.median(peer):.3f} s"
    print(f"{what:58} {ratio:7.3f}x  ({figures}{'; ' + why if why else ''})", flush=True)


def outlast(folder: Path, threads: int) -> dict[str, list[dict[str, float]]]:
    """Has the model train with so many threads; returns what it printed."""
    (folder / "train.py").write_text(CODE.format(mib=MIB, rounds=ROUNDS, stretch=STRETCH, threads=threads))
    (folder / "plan.yaml").write_text(json.dumps({"run": "bench", "script": "train.py", "models": [{"name": "m"}]}))
    command = ["outlast", "train", "plan.yaml", "--dir", "data", "--python", sys.executable]
    never = ["--checkpoint-every", "1000000000steps"]  # but when it is asked for
    threaded = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}  # torch's own setting does not reach this library
    subprocess.run([*command, *never], cwd=folder, check=True, stdout=subprocess.DEVNULL, env=threaded)
    said: dict[str, list[dict[str, float]]] = {"first": [], "copy": [], "stretch": []}
    for line in (folder / "data" / "bench" / "models" / "m" / "log.txt").read_text().splitlines():
        kind, _, figures = line.partition(" ")
        if kind in said:
            said[kind].append(json.loads(figures))
    return said


if __name__ == "__main__":
    main()
