"""Checks of what users pass: metrics, and numbers of steps."""

from __future__ import annotations

import operator
from typing import Any


def whole(value: Any, call: str) -> int:
    """The whole number that a caller of call gave."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{call}: a {type(value).__name__} is no whole number. "
            "A number of steps goes to job.steps, a data loader to job.batches."
        ) from None


# What each line of metrics says itself.
TAKEN = ("step", "time")


def free(name: str) -> str:
    """The name for a metric that a trainer calls so."""
    return f"logged_{name}" if name in TAKEN else name


def logged(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one step as plain numbers."""
    for name in TAKEN:
        if name in metrics:
            raise ValueError(
                f"job.log({name}=...): every line of metrics has its step and its time already. "
                f"Log it under another name, such as {free(name)}."
            )
    return plain(metrics)


def plain(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics as plain numbers."""
    return {name: _plain(name, value) for name, value in metrics.items()}


def _plain(name: str, value: Any) -> Any:
    try:
        number = value.item()  # a tensor or a numpy number
    except (AttributeError, ValueError, RuntimeError):  # it is none, or holds several
        number = value
    if not isinstance(number, (int, float, str)):
        raise TypeError(
            f"job.log({name}=...): a {type(value).__name__} is no number. "
            "Log one number for each name, such as loss.item()."
        )
    return number
