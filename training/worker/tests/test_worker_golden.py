"""What the module sends is what training/testdata/protocol.jsonl shows.

The Go side reads the same file: neither can change the protocol alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worker_rig
from outlast import _events

GOLDEN = Path(__file__).resolve().parents[2] / "testdata" / "protocol.jsonl"
EXAMPLES = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
KINDS = ["hello", "restored", "progress", "metrics", "checkpoint", "finish", "paused", "failed", "failed", "note"]

DONE = "for step in job.steps(3): job.log(loss=0.5)\njob.finish(accuracy=1.0)"
PAUSED = "import signal\nfor step in job.steps(3): signal.raise_signal(signal.SIGTERM)"
FAILED = "raise ValueError('no')"
SHORT = "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB.')"


def shape(event: dict[str, Any]) -> list[tuple[str, str]]:
    """The fields of an event in their order, with the types of their values."""
    return [(name, type(value).__name__) for name, value in event.items()]


def test_the_golden_file_has_examples_of_every_event() -> None:
    assert [e["event"] for e in EXAMPLES] == KINDS


def test_the_module_speaks_the_version_of_the_golden_file() -> None:
    assert EXAMPLES[0]["protocol"] == _events.PROTOCOL


def test_the_module_sends_every_event_with_exactly_the_golden_fields(
    run: Callable[..., worker_rig.Ended],
) -> None:
    checkpoint = run(PAUSED).checkpoint
    sent = [event for source in (DONE, PAUSED, FAILED, SHORT) for event in run(source).events]
    sent += run(DONE, checkpoint=checkpoint).events  # it tracks nothing, which is noted
    assert {e["event"] for e in sent} == set(KINDS)
    for event in sent:
        assert shape(event) in [shape(e) for e in EXAMPLES if e["event"] == event["event"]], event


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines(), ids=[f"{kind}-{i}" for i, kind in enumerate(KINDS)])
def test_a_golden_line_is_what_the_module_would_write(line: str, tmp_path: Path) -> None:
    fields = json.loads(line)
    with (tmp_path / "events").open("wb") as file:
        _events.Events(file.fileno()).send(fields.pop("event"), **fields)
    assert (tmp_path / "events").read_text() == line + "\n"
