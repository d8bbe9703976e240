"""Keeps data loaders within the number of processes that the machine's memory allows."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from . import _imports


def limit(most: int | None) -> None:
    """Lets torch's data loaders start at most so many processes; None is no limit.

    A program asks for as many as it likes, on a machine that may have too little
    memory for them. The order of the data does not depend on their number, what
    they draw at random does.
    """
    if most is not None:
        _imports.after("torch.utils.data.dataloader", lambda module: _wrap(module.DataLoader, most))


def _wrap(loader: Any, most: int) -> None:
    init = loader.__init__
    signature = inspect.signature(init)

    @functools.wraps(init)
    def limited(*args: Any, **options: Any) -> None:
        try:
            given = signature.bind(*args, **options)
        except TypeError:  # torch says it better
            return init(*args, **options)
        asked = given.arguments.get("num_workers", 0)
        if isinstance(asked, int) and asked > most:
            given.arguments["num_workers"] = most
            if most == 0:  # what torch accepts only together with processes
                for name in ("prefetch_factor", "persistent_workers", "timeout", "multiprocessing_context"):
                    given.arguments.pop(name, None)
        return init(*given.args, **given.kwargs)

    loader.__init__ = limited
