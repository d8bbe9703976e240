"""What the end-to-end tests share: the real binary, real runs, real signals."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("OUTLAST_BINARY", ROOT / "outlast"))

# One model small enough to train in seconds, with everything in it that a
# careless resume gets wrong: dropout, a stateful optimizer, a schedule, data
# in shuffled order, and no seeding of its own.
TRAIN = """
import time

import torch
from torch import nn

import outlast

torch.set_num_threads(1)
job = outlast.job()
data = torch.randn(256, 16, generator=torch.Generator().manual_seed(1))
target = (data[:, :4].sum(1, keepdim=True) > 0).float()
width = job.params["width"]
model = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
loader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(data, target), batch_size=16, shuffle=True
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12 * len(loader))
job.track(model=model, optimizer=optimizer, schedule=schedule)
for x, y in job.batches(loader, epochs=12):
    loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    job.log(loss=loss)
    time.sleep(0.01)  # long enough to be killed in the middle
job.finish(loss=loss)
"""

STEPS = 12 * 16

PLAN = """
run: survivors
script: train.py
models:
  - name: narrow
    params: {width: 8}
  - name: wide
    params: {width: 32}
"""


def write_plan(folder: Path) -> Path:
    """Writes the plan and its script, and returns the plan's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(TRAIN)
    plan = folder / "plan.yaml"
    plan.write_text(PLAN)
    return plan


def environment(**extra: str) -> dict[str, str]:
    """The environment of a user whose shell has the test's Python active."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}
    env["VIRTUAL_ENV"] = sys.prefix
    env["PATH"] = f"{BINARY.parent}:{Path(sys.executable).parent}:{env['PATH']}"
    return env | extra


def outlast(
    *args: str | Path, check: bool = True, env: dict[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Runs one command of the binary to its end."""
    env = env or environment()
    done = subprocess.run([BINARY, *map(str, args)], env=env, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"outlast {args}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def status(data: Path, run: str = "survivors") -> dict:
    """What `outlast status --json` says."""
    return json.loads(outlast("status", run, "--dir", data, "--json").stdout)


def model_of(state: dict, name: str) -> dict:
    """One model of a status or of results."""
    return next(m for m in state["models"] if m["name"] == name)


def wait_for(what: str, probe: Callable[[], object], seconds: float = 90) -> object:
    """Waits until probe returns something true, and returns that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


def alive(pid: int) -> bool:
    """Whether a process with this id works (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def digest(final: str | Path) -> str:
    """A digest over the bits of every trained parameter."""
    import torch

    parameters = torch.load(Path(final) / "model.pt")
    h = hashlib.sha256()
    for name in sorted(parameters):
        h.update(name.encode())
        h.update(parameters[name].numpy().tobytes())
    return h.hexdigest()


def digests(data: Path, run: str = "survivors") -> dict[str, str]:
    """The digest of every model of a finished run."""
    results = json.loads(outlast("results", run, "--dir", data, "--json").stdout)
    assert {m["state"] for m in results["models"]} == {"done"}, results
    return {m["name"]: digest(m["final"]) for m in results["models"]}


def metrics(data: Path, model: str, run: str = "survivors") -> list[dict]:
    """The metrics file of one model, line by line."""
    text = (data / run / "models" / model / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
