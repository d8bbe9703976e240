"""Measures what training costs beside training; ``make bench`` calls it.

Every figure is a ratio against its peer in the same run, and the peers take
turns, so that a busy machine disturbs both.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = 12
ROUNDS = int(os.environ.get("OUTLAST_BENCH_ROUNDS", "3"))

# A small model trains for some seconds, on an idle machine.
STEPS = int(os.environ.get("OUTLAST_BENCH_STEPS", "3000"))

# As many models as this are packed.
CORES = len(os.sched_getaffinity(0))

# What torch's own setting does not reach. Threads that wait for each other stand
# still when anything else runs, and it is not them that is measured.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Trains one model; the loop trains them all in one process, as people do. Both
# keep the result on disk. What is not the same is what is measured.
CODE = """
import time

import torch
from torch import nn

torch.set_num_threads(1)


def train(width, steps, log):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
    for step in steps(model, optimizer):
        if step == 0:
            print("first", time.time())
        x = torch.randn(256, 64)
        loss = (model(x) - x[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log(loss)
    print("last", time.time())
    return model
"""

LOOP = """
for n in range({models}):
    model = train(256, lambda model, optimizer: range({steps}), lambda loss: float(loss))
    torch.save(model.state_dict(), f"model-{{n}}.pt")
"""

WORKER = """
import outlast

job = outlast.job()


def steps(model, optimizer):
    job.track(model=model, optimizer=optimizer)
    yield from job.steps({steps})


train(256, steps, lambda loss: job.log(loss=loss))
job.finish()
"""


def main() -> None:
    """Prints the ratios."""
    with tempfile.TemporaryDirectory(prefix="outlast-bench-") as folder:
        gaps = []
        for n in range(ROUNDS):
            gaps.append(gap(Path(folder) / f"gap-{n}"))
        middle = statistics.median(mine / cold for mine, cold in gaps)
        report(
            "gap between two models / cold `import torch`",
            middle,
            0.15,
            *map(statistics.median, zip(*gaps, strict=True)),
        )
        times = []
        for n in range(ROUNDS):
            took, _ = outlast(Path(folder) / f"run-{n}", STEPS)
            plain = loop(Path(folder) / f"loop-{n}", STEPS)
            packed, _ = outlast(Path(folder) / f"packed-{n}", STEPS, "--parallel", str(CORES))
            auto, _ = outlast(Path(folder) / f"auto-{n}", STEPS, "--parallel", "auto")
            times.append((took, plain, packed, auto))
        ways = {
            f"{MODELS} models in turn / plain loop": (0, 1, 1.02),
            f"{MODELS} models, {CORES} at once / in turn": (2, 0, 0.9),
            f"{MODELS} models, --parallel auto / in turn": (3, 0, 0.95),
        }
        middles = list(map(statistics.median, zip(*times, strict=True)))
        for what, (mine, peer, target) in ways.items():
            ratio = statistics.median(t[mine] / t[peer] for t in times)
            report(what, ratio, target, middles[mine], middles[peer])


def report(what: str, ratio: float, target: float, mine: float, peer: float) -> None:
    """Prints one line."""
    print(f"{what:52} {ratio:6.3f}x  (target {target}x; {mine:.3f} s / {peer:.3f} s)", flush=True)


def gap(folder: Path) -> tuple[float, float]:
    """The median time from one model's end to the next one's first step; and a cold import."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    cold = time.perf_counter() - begun
    _, marks = outlast(folder, 20)
    waits = [first - last for (_, last), (first, _) in itertools.pairwise(marks)]
    return statistics.median(waits), cold


def outlast(folder: Path, steps: int, *flags: str) -> tuple[float, list[tuple[float, float]]]:
    """Trains in a run; returns how long it took, and when each model began and ended."""
    folder.mkdir()
    (folder / "train.py").write_text(CODE + WORKER.format(steps=steps))
    models = [{"name": f"m{n:02}"} for n in range(MODELS)]
    (folder / "plan.yaml").write_text(json.dumps({"run": "bench", "script": "train.py", "models": models}))
    command = ["outlast", "train", "plan.yaml", "--dir", "data", "--python", sys.executable, *flags]
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - begun
    marks = []
    for model in models:
        log = (folder / "data" / "bench" / "models" / model["name"] / "log.txt").read_text()
        said = dict(line.split() for line in log.splitlines() if line.startswith(("first", "last")))
        marks.append((float(said["first"]), float(said["last"])))
    return took, marks


def loop(folder: Path, steps: int) -> float:
    """Trains in a plain loop; returns how long it took."""
    folder.mkdir()
    (folder / "loop.py").write_text(CODE + LOOP.format(models=MODELS, steps=steps))
    begun = time.perf_counter()
    subprocess.run([sys.executable, "loop.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
