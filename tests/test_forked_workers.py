"""Workers that are forked train to the same bits as those that are Pythons of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import rig

# What a fork could break: threads of two libraries, processes of data loaders,
# and the random numbers of three.
TRAIN = """
import os
import random

import numpy as np
import torch
from torch import nn

import outlast

job = outlast.job()
print("from", os.getppid())
big = torch.randn(400, 400)
noise = float(np.random.rand()) + random.random() + float((big @ big).sum()) + float((big.numpy() @ big.numpy()).sum())
model = nn.Sequential(nn.Linear(16, job.params["width"]), nn.ReLU(), nn.Dropout(0.2), nn.Linear(job.params["width"], 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), batch_size=16, shuffle=True, num_workers=1)
job.track(model=model, optimizer=optimizer)
for (x,) in job.batches(loader, epochs=3):
    loss = (model(x) - noise / 1e6 - random.random() - np.random.rand()).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    job.log(loss=loss)
job.finish(loss=loss)
"""

# A Python that can be no fork server.
ALONE = """#!/bin/sh
case "$*" in *outlast._server*) exit 9 ;; esac
exec "{python}" "$@"
"""


def parents(data: Path) -> set[str]:
    """Which processes the workers came from."""
    logs = (data / "survivors" / "models").glob("*/log.txt")
    return {line for log in logs for line in log.read_text().splitlines() if line.startswith("from ")}


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_forked_and_lone_workers_train_to_the_same_bits(tmp_path: Path) -> None:
    plan = rig.write_plan(tmp_path / "plan")
    (plan.parent / "train.py").write_text(TRAIN)
    alone = tmp_path / "alone"
    alone.write_text(ALONE.format(python=sys.executable))
    alone.chmod(0o755)
    rig.outlast("train", plan, "--dir", tmp_path / "forked", "--python", sys.executable)
    rig.outlast("train", plan, "--dir", tmp_path / "lone", "--python", alone)
    assert rig.digests(tmp_path / "forked") == rig.digests(tmp_path / "lone")
    for model in ("narrow", "wide"):
        forked, lone = (rig.metrics(tmp_path / way, model) for way in ("forked", "lone"))
        assert [m["loss"] for m in forked] == [m["loss"] for m in lone]
    assert len(parents(tmp_path / "forked")) == 1
    assert not parents(tmp_path / "forked") & parents(tmp_path / "lone")
    said = (tmp_path / "lone" / "survivors" / "supervisor.log").read_text()
    assert "no fork server" in said
    assert "no fork server" not in (tmp_path / "forked" / "survivors" / "supervisor.log").read_text()
