"""What the chaos test trains, and what it does to that: both follow from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

RUN = "chaos"
EVERY = 4  # steps between two checkpoints
EFFECTIVE = 16
FITS = 8  # samples; the model `greedy` runs out of memory with more

# One script for all models. Every kind keeps its state in another way; none of
# them seeds anything or says where it was.
TRAIN = """
import random
import time

import numpy as np

import outlast


class OutOfMemoryError(RuntimeError):
    pass


def vectors(job, steps):
    state = {"w": np.zeros(64), "m": np.zeros(64)}
    own = np.random.default_rng(7)
    job.track(model=state, own=own)
    for _ in steps:
        g = state["w"] - np.random.randn(64) - own.normal(size=64)
        state["m"] = 0.9 * state["m"] + g
        state["w"] = state["w"] - 0.05 * state["m"]
        yield float(np.square(state["w"]).mean())


def lists(job, steps):
    weights = [0.0] * 16
    job.track(model=weights)
    for step in steps:
        weights[:] = [w + random.gauss(0, 1) / (step + 1) for w in weights]
        if step % 5 == 3:
            job.save()
        yield sum(weights)


def greedy(job, steps):
    # Sample by sample, so that the sum does not depend on how a batch is divided.
    w = np.zeros(8)
    job.track(model=w)
    for step in steps:
        if job.batch_size > job.params["fits"] and step >= 3:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        g = np.zeros(8)
        for _ in range(job.grad_accum):
            for _ in range(job.batch_size):
                g += w - np.random.randn(8)
        w -= 0.05 * g / 16
        job.log(samples=job.batch_size * job.grad_accum)
        yield float(np.square(w).mean())


def network(job, _):
    import torch
    from torch import nn

    torch.set_num_threads(1)
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(x, (x[:, :2].sum(1, keepdim=True) > 0).float())
    width = job.params["width"]
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.9)
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    job.track(model=model, optimizer=optimizer, schedule=schedule)
    for inputs, target in job.batches(loader, epochs=job.params["steps"] // 6):
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


def broken(job, _):
    import a_library_that_nobody_has

    yield a_library_that_nobody_has.loss(job)


job = outlast.job()
kinds = {"vectors": vectors, "lists": lists, "greedy": greedy, "network": network, "broken": broken}
kind = job.params["kind"]
for loss in kinds[kind](job, None if kind == "network" else job.steps(job.params["steps"])):
    job.log(loss=loss)
    time.sleep(job.params["pace"])
job.finish(loss=loss)
"""

BROKEN, GREEDY = "broken", "greedy"


def models(with_torch: bool) -> list[dict]:
    """The plan's models; those of torch take seconds to start."""
    plan = [{"kind": "vectors" if i % 3 else "lists", "steps": 18 + 2 * i} for i in range(10)]
    plan.insert(2, {"kind": "broken", "steps": 12})
    plan.insert(4, {"kind": "greedy", "steps": 20, "fits": FITS})
    if with_torch:
        plan += [{"kind": "network", "steps": 18, "width": 8}, {"kind": "network", "steps": 24, "width": 32}]
    fixed = {"broken": BROKEN, "greedy": GREEDY}
    return [
        {"name": fixed.get(p["kind"], f"{p['kind']}-{i}"), "params": {**p, "pace": 0.004}} for i, p in enumerate(plan)
    ]


# How often each kind of fault is drawn. `full` needs a disk of its own.
FAULTS = {
    "kill worker": 8,
    "kill supervisor": 6,
    "kill finder": 4,
    "kill all": 5,
    "kill server": 3,
    "stop worker": 4,
    "stop worker, kill": 3,
    "stop supervisor": 4,
    "stop supervisor, kill": 3,
    "stop all, kill": 2,
    "term worker": 4,
    "term supervisor": 4,
    "term finder": 2,
    "term all": 2,
    "interrupt finder twice": 2,
    "wipe": 5,
    "damage": 8,
    "damage result": 3,
    "damage store": 4,
    "full": 2,
}

DAMAGES = ("flip", "truncate", "empty")


@dataclass(frozen=True)
class Fault:
    """One thing that is done to a run."""

    kind: str
    after: int  # steps of progress since the fault before
    jitter: float  # seconds on top, to meet every moment
    pause: float  # seconds between the two halves of a fault that has two
    damage: str  # how a file is damaged
    pick: float  # which of several, as a part of their number
    resume: str  # how it goes on, if this ended it: `resume`, `train`, or a kernel
    detach: bool  # nobody watches then

    def __str__(self) -> str:
        extra = f" ({self.damage})" if self.kind.startswith("damage") else ""
        return f"after {self.after} steps: {self.kind}{extra}, then {self.resume}{' --detach' if self.detach else ''}"


@dataclass(frozen=True)
class Schedule:
    """What happens in one round."""

    seed: int
    number: int
    torch: bool = False
    first: str = "train"
    detach: bool = False
    faults: list[Fault] = field(default_factory=list)
    parallel: str = "1"

    def __str__(self) -> str:
        how = f"{self.first}{' --detach' if self.detach else ''} --parallel {self.parallel}"
        lines = [f"start: {how}{', with torch' if self.torch else ''}"]
        return "\n".join(f"  {line}" for line in lines + [str(f) for f in self.faults])


def schedule(seed: int, number: int) -> Schedule:
    """The schedule of a round: always the same for the same two numbers."""
    r = random.Random(f"{seed}/{number}")
    finder = ["train", "train", "train", "train", "train", "kernel"]
    faults = [
        Fault(
            kind=r.choices(list(FAULTS), list(FAULTS.values()))[0],
            after=r.randint(1, 70),
            jitter=r.random() * 0.12,
            pause=0.05 + r.random() * 0.4,
            damage=r.choice(DAMAGES),
            pick=r.random(),
            resume=r.choice(
                ["resume", "resume", "resume", "train", "train", "kernel" if r.random() < 0.3 else "resume"]
            ),
            detach=r.random() < 0.4,
        )
        for _ in range(r.randint(3, 6))
    ]
    torch, first, detach = r.random() < 0.2, r.choice(finder), r.random() < 0.3
    return Schedule(seed, number, torch, first, detach, faults, r.choice(["1", "1", "2", "3", "auto"]))
