"""Says why a worker failed, so that the supervisor need not guess from texts.

The supervisor knows more texts (it also judges what only the log says); here
stand the exceptions, and what only this process can ask the device.
"""

from __future__ import annotations

import errno
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

# Exit status by kind, of sysexits.h: "service unavailable", "system error",
# "cannot create output". Everything that the user's code raises is 1.
STATUS = {"user": 1, "oom": 71, "host_oom": 71, "disk_full": 73, "device_lost": 69}

# As long as a message may be, to stay within the length of an event.
LONGEST = 16_000

_NEVER = re.compile(r"no kernel image is available|size mismatch for |device-side assert")
_KINDS = [
    (
        "oom",
        r"(CUDA|HIP|XPU|MPS backend) out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
        r"|cudaErrorMemoryAllocation|(CUBLAS|CUSPARSE|CUSOLVER|CUDNN)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
        r"|cuDNN error: CUDNN_STATUS_NOT_SUPPORTED|RESOURCE_EXHAUSTED: |OOM when allocating tensor"
        r"|MODULE:PT_DEVMEM Allocation failed",
    ),
    (
        "host_oom",
        r"DefaultCPUAllocator: (can't allocate|not enough) memory|Unable to allocate .* for an array with shape"
        r"|std::bad_alloc|Cannot allocate memory|is killed by signal: (Killed|Bus error)"
        r"|(out of|insufficient) shared memory",
    ),
    (
        "disk_full",
        r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing file"
        r"|\d+ requested and \d+ written",  # numpy's way to say it
    ),
    (
        "device_lost",
        r"GPU (has fallen|is lost|has been lost)|fallen off the bus|uncorrectable (NVLink |ECC )?error"
        r"|Unable to determine the device handle|CUDA-capable devices? ?(\(s\))? (is/)?are busy or unavailable",
    ),
]


def kind(error: BaseException) -> str:
    """What raised: ``oom``, ``host_oom``, ``disk_full``, ``device_lost`` or ``user``."""
    for one in _chain(error):
        if found := _kind(one):
            return found
    return "user"


def _kind(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "host_oom"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "host_oom"
    names = {c.__name__ for c in type(error).__mro__}
    if names & {"OutOfMemoryError", "ResourceExhaustedError"}:  # torch's, and tensorflow's
        return "oom"
    if not isinstance(error, (RuntimeError, OSError)) and "XlaRuntimeError" not in names:
        return None  # a text in a ValueError is the user's own
    text = message(error)
    if _NEVER.search(text):
        return None
    return next((k for k, pattern in _KINDS if re.search(pattern, text)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def message(error: BaseException) -> str:
    """What error says, within the length of an event."""
    try:
        return str(error)[:LONGEST]
    except Exception:  # the user's own __str__
        return "<exception str() failed>"


def describe(error: BaseException, frames: Any, where: str = "") -> dict[str, Any]:
    """The fields of the event failed; frames is the traceback to show, where is said behind the message."""
    what = kind(error)
    text = "".join(traceback.format_exception(type(error), error, frames)).removesuffix("\n") + where + "\n"
    fields = {
        "kind": what,
        "type": type(error).__name__,
        "message": message(error) + where,
        "traceback": text[-LONGEST:],
    }
    if what == "oom" and (figures := memory(error)):
        fields["memory"] = figures
    return fields


_AMOUNT = r"([\d.]+)\s?([KMG]i?B|bytes)"
# In the order of texts of torch 2, then of those before it, then jax's.
_FIGURES = {
    "tried_mib": (r"[Tt]ried to allocate " + _AMOUNT, r"trying to allocate " + _AMOUNT),
    "free_mib": (r"of which " + _AMOUNT + r" is free", _AMOUNT + r" free"),
    "total_mib": (r"total capacity of " + _AMOUNT, _AMOUNT + r" total capacity"),
    "allowed_mib": (_AMOUNT + r" allowed;",),
    "allocated_mib": (_AMOUNT + r" is allocated by PyTorch", _AMOUNT + r" already allocated"),
    "reserved_mib": (_AMOUNT + r" is reserved by PyTorch but unallocated",),
    "held_mib": (_AMOUNT + r" reserved in total by PyTorch",),
}
_UNITS = {"b": 1 / (1 << 20), "K": 1 / 1024, "M": 1.0, "G": 1024.0}


def memory(error: BaseException) -> dict[str, float]:
    """The figures of a device without enough memory, in MiB: what the text says, then what torch says."""
    figures: dict[str, float] = {}
    for one in _chain(error):
        for name, patterns in _FIGURES.items():
            found = next((f for p in patterns if (f := re.search(p, message(one)))), None)
            if found and name not in figures:
                figures[name] = float(found[1].rstrip(".")) * _UNITS[found[2][0]]
    held = figures.pop("held_mib", None)
    if held is not None and "allocated_mib" in figures:
        figures["reserved_mib"] = held - figures["allocated_mib"]
    return {**device_memory(), **figures}


def peak() -> dict[str, Any]:
    """The field of the event finish that says how much of the device's memory training took; empty without one."""
    figures = {k: v for k, v in device_memory().items() if k == "peak_mib"}
    return {"memory": figures} if figures else {}


def device_memory() -> dict[str, float]:
    """What torch knows of its device, in MiB; empty without a GPU in use."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return {}
        free, total = torch.cuda.mem_get_info()
        allocated = torch.cuda.memory_allocated()
        figures = {
            "free_mib": free,
            "total_mib": total,
            "allocated_mib": allocated,
            "reserved_mib": torch.cuda.memory_reserved() - allocated,
            "peak_mib": torch.cuda.max_memory_reserved(),
        }
    except Exception:  # a device in trouble answers nothing
        return {}
    return {name: bytes / (1 << 20) for name, bytes in figures.items()}
