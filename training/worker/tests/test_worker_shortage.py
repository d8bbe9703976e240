"""What a worker says, and does, when memory or disk run out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worker_rig
from outlast import _failure, _start

Run = Callable[..., worker_rig.Ended]

NEW = (
    "CUDA out of memory. Tried to allocate 540.00 MiB. GPU 0 has a total capacity of 14.75 GiB of which 298.75 MiB is "
    "free. Process 63729 has 14.46 GiB memory in use. Of the allocated memory 13.50 GiB is allocated by PyTorch, and "
    "512.00 MiB is reserved by PyTorch but unallocated."
)
CAPPED = NEW.replace("is free. Process", "is free. 12.50 GiB allowed; Process")
OLD = (
    "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 14.75 GiB total capacity; 11.00 GiB already allocated; "
    "1.25 GiB free; 12.00 GiB reserved in total by PyTorch)"
)


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


class ResourceExhaustedError(Exception):
    """As tensorflow's is called."""


class XlaRuntimeError(Exception):
    """As jax's is called."""


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("oom", OutOfMemoryError(NEW)),
        ("oom", RuntimeError(OLD)),
        ("oom", RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")),
        ("oom", RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        ("oom", RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if")),
        ("oom", RuntimeError("HIP out of memory. Tried to allocate 2 GiB")),
        ("oom", RuntimeError("MPS backend out of memory (MPS allocated: 3 GB)")),
        ("oom", XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes.")),
        ("oom", ResourceExhaustedError("OOM when allocating tensor with shape[8,8]")),
        ("host_oom", MemoryError()),
        ("host_oom", MemoryError("Unable to allocate 7.45 TiB for an array with shape (1,)")),
        ("host_oom", RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")),
        ("host_oom", RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")),
        ("host_oom", RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that")),
        ("host_oom", OSError(errno.ENOMEM, "Cannot allocate memory")),
        ("disk_full", OSError(errno.ENOSPC, "No space left on device")),
        ("disk_full", OSError(errno.EDQUOT, "Disk quota exceeded")),
        (
            "disk_full",
            RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file x"),
        ),
        ("device_lost", RuntimeError("CUDA error: uncorrectable ECC error encountered")),
        ("device_lost", RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")),
        ("device_lost", RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")),
        ("user", RuntimeError("CUDA error: no kernel image is available for execution on the device")),
        ("user", RuntimeError("CUDA error: device-side assert triggered")),
        ("user", RuntimeError("Error(s) in loading state_dict: size mismatch for lora_A: CUDA out of memory")),
        ("user", ValueError("CUDA out of memory")),
        ("user", OSError(errno.ENOENT, "No such file or directory")),
        ("user", KeyError("x")),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_exceptions_are_told_apart(kind: str, error: BaseException) -> None:
    assert _failure.kind(error) == kind
    wrapped = RuntimeError("the trainer failed")
    wrapped.__cause__ = error
    assert _failure.kind(wrapped) == kind, "as a cause, too"
    assert kind in _failure.STATUS


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        (NEW, {"tried_mib": 540, "free_mib": 298.75, "total_mib": 15104, "allocated_mib": 13824, "reserved_mib": 512}),
        (
            CAPPED,
            {
                "tried_mib": 540,
                "free_mib": 298.75,
                "total_mib": 15104,
                "allowed_mib": 12800,
                "allocated_mib": 13824,
                "reserved_mib": 512,
            },
        ),
        (OLD, {"tried_mib": 2048, "free_mib": 1280, "total_mib": 15104, "allocated_mib": 11264, "reserved_mib": 1024}),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1048576 bytes.", {"tried_mib": 1}),
        ("CUDA error: out of memory", {}),
    ],
    ids=["new", "capped", "old", "jax", "silent"],
)
def test_the_figures_of_a_message_are_read(text: str, figures: dict[str, float]) -> None:
    assert _failure.memory(RuntimeError(text)) == figures


def test_a_device_without_memory_is_told_with_figures_and_a_status(run: Run) -> None:
    ended = run(f"class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError({NEW!r})")
    failed = ended.one("failed")
    assert (failed["kind"], failed["type"], ended.status) == ("oom", "OutOfMemoryError", 71)
    assert failed["memory"]["tried_mib"] == 540


def test_a_real_host_without_memory_is_told(run: Run) -> None:
    ended = run("import numpy\nnumpy.zeros(1 << 62, dtype='uint8')")
    assert (ended.one("failed")["kind"], ended.status) == ("host_oom", 71)
    ended = run("import torch\ntorch.zeros(1 << 60)")
    assert (ended.one("failed")["kind"], ended.status) == ("host_oom", 71)


def small_disk(folder: Path, source: str, size: str = "300k", **job: Any) -> worker_rig.Ended:
    """Runs a worker whose staging folder is a disk of its own, and small."""
    mount = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    probe = subprocess.run([*mount, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mounts of our own here: {probe.stderr.decode().strip()}")
    script = f'mount -t tmpfs -o size={size} none {folder / "staging"} && exec "$@"'
    wrap = [*mount, "sh", "-c", script, "sh", sys.executable]
    worker = worker_rig.Worker(folder, source, python=wrap, **job)
    try:
        return worker.ended()
    finally:
        worker.kill()


GROWING = """
import torch
weights = {"w": torch.zeros(10)}
job.track(weights=weights)
for step in job.steps(6):
    weights["w"] = torch.zeros(200_000 if step in (2, 3) else 10)
    job.log(loss=step)
"""


def test_a_full_disk_stops_no_training(tmp_path: Path) -> None:
    ended = small_disk(tmp_path / "w", GROWING, checkpoint_every={"steps": 1})
    assert [e["step"] for e in ended.all("checkpoint")] == [1, 2, 5, 6]
    note = ended.one("note")
    assert (note["kind"], note["step"]) == ("disk_full", 3), "said once, not at every step"
    assert [step for step, _ in ended.metrics] == list(range(6))
    assert ended.status == 0


def test_a_final_checkpoint_that_does_not_fit_is_a_failure_of_the_disk(tmp_path: Path) -> None:
    source = GROWING + 'weights["w"] = torch.zeros(200_000)\n'
    ended = small_disk(tmp_path / "w", source)
    assert (ended.one("failed")["kind"], ended.status) == ("disk_full", 73)
    assert ended.all("finish") == []


def test_arrays_that_do_not_fit_are_noticed_too(tmp_path: Path) -> None:
    source = "import numpy\njob.track(w=numpy.zeros(200_000))\nfor step in job.steps(2): pass"
    ended = small_disk(tmp_path / "w", source, checkpoint_every={"steps": 1})
    assert ended.one("note")["kind"] == "disk_full"
    assert ended.one("failed")["kind"] == "disk_full"


def test_the_cap_on_memory_waits_until_the_device_is_used(run: Run) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    source = (
        "import torch\n"
        "print(torch.cuda.is_initialized())\n"
        "torch.cuda.set_per_process_memory_fraction = lambda f, d: print('cap', f, d)\n"
        "ours = [c for c, *_ in torch.cuda._queued_calls if 'outlast' in c.__module__]\n"
        "for call in ours: call()"
    )
    assert run(source, memory_fraction=0.85, device="cuda").output == "False\ncap 0.85 None\n"
    assert run(source, memory_fraction=0.85, device="cuda:1").output == "False\ncap 0.85 cuda:1\n"
    assert run(source, memory_fraction=0.85, device="cpu").output == "False\n"
    assert run(source, memory_fraction=0.0, device="cuda").output == "False\n"


@pytest.mark.parametrize(("most", "want"), [(None, 3), (2, 2), (0, 0)])
def test_data_loaders_keep_within_the_processes_they_may_have(most: int | None, want: int, run: Run) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    ended = run(
        "import warnings\nwarnings.simplefilter('ignore')\nfrom torch.utils.data import DataLoader\n"
        "many = DataLoader([1, 2, 3], 1, False, None, None, 3, persistent_workers=True, prefetch_factor=4)\n"
        "print(many.num_workers, DataLoader([1], num_workers=1).num_workers, sorted(x.item() for x in many))\n"
        "try: DataLoader()\n"
        "except TypeError as error: print(error)",
        loader_workers=most,
    )
    first, second = ended.output.splitlines()
    assert first == f"{want} {min(want, 1)} [1, 2, 3]"
    assert "missing 1 required positional argument: 'dataset'" in second


def test_the_module_imports_no_library_by_itself(run: Run) -> None:
    ended = run("import sys\nprint(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))", memory_fraction=0.5)
    assert ended.output == "[]\n"


def test_a_library_found_by_another_finder_is_seeded_as_well(run: Run) -> None:
    ended = run(
        "import importlib.machinery, sys, types\n"
        "class Loader:\n"
        "    def create_module(self, spec): return types.ModuleType('torch')\n"
        "    def exec_module(self, module): module.manual_seed = lambda n: print('seed', n)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return importlib.machinery.ModuleSpec(name, Loader()) if name == 'torch' else None\n"
        "sys.meta_path.insert(1, Finder())\n"
        "import torch\n"
        "del sys.modules['torch']"
    )
    assert ended.output == "seed 7\n"


def test_every_kind_has_a_status_that_is_nobody_elses() -> None:
    others = {0, 2, 74, 75, 126, 127}
    assert not others & set(_failure.STATUS.values())
    assert all(status < 128 for status in _failure.STATUS.values()), "a shell's way to say signal"
    assert _start.PROTOCOL == 1
