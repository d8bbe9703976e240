"""Measures the kernel and the bare ipykernel, interleaved in one run, and prints ratios.

What is measured is what a front end sees through pyzmq: round trips, rates, and times from the start of the process.
`--messages 1000000` looks longer for growing memory. A ratio above 1 is slower than ipykernel, but for rates, where
it is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("OUTLAST_BINARY", ROOT / "outlast"))
PATIENCE = 300.0
SILENCE = 5  # seconds without a message, in a cell that prints all the time, mean that the last ones were lost


def environment(*specs: Path) -> dict[str, str]:
    """The environment of a user whose shell has this Python active."""
    paths = [*(str(folder.parent) for folder in specs), str(Path(sys.prefix) / "share" / "jupyter")]
    return os.environ | {
        "JUPYTER_PATH": os.pathsep.join(paths),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
    }


class Kernel:
    """A kernel, started as a server does it, and a client of it."""

    def __init__(self, specs: Path, name: str) -> None:
        self.name = name
        self.manager = KernelManager(kernel_name=name)
        self.manager.kernel_spec_manager.kernel_dirs = [str(specs), *self.manager.kernel_spec_manager.kernel_dirs]
        self.began = time.perf_counter()
        self.manager.start_kernel(env=environment(specs))
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels(hb=False)

    def since_start(self) -> float:
        return time.perf_counter() - self.began

    def info(self) -> float:
        """Seconds until kernel_info is answered on control."""
        began = time.perf_counter()
        self.client.session.send(self.client.control_channel.socket, "kernel_info_request", {})
        self.client.get_control_msg(timeout=PATIENCE)
        return time.perf_counter() - began

    def run(self, code: str) -> tuple[float, float]:
        """Runs a cell; returns the seconds until its reply and until its idle."""
        began = time.perf_counter()
        msg_id = self.client.execute(code)
        self.reply(msg_id)
        replied = time.perf_counter() - began
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == msg_id and message["content"].get("execution_state") == "idle":
                return replied, time.perf_counter() - began

    def reply(self, msg_id: str) -> None:
        """Waits for the reply to a cell, which must have succeeded."""
        while True:
            message = self.client.get_shell_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == msg_id:
                break
        if message["content"]["status"] != "ok":
            raise RuntimeError(f"{self.name}: {message['content']}")

    def drain(self, code: str, rest: float = 0) -> tuple[float, int, int]:
        """Runs a cell whose output is only counted: seconds, messages, bytes. ipykernel loses some when it is busy.

        A client that rests when there is nothing takes then what has come: nobody is woken for each message.
        """
        socket = self.client.iopub_channel.socket
        began = last = time.perf_counter()
        msg_id = self.client.execute(code).encode()
        count = size = 0
        while socket.poll(SILENCE * 1000):
            frames = socket.recv_multipart()
            last = time.perf_counter()
            count += 1
            size += len(frames[-1])
            if msg_id in frames[-3] and b'"idle"' in frames[-1]:
                break
            if rest and not socket.poll(0):
                time.sleep(rest)
        self.reply(msg_id.decode())
        return last - began, count, size

    def resident(self) -> float:
        """Memory of the process that Jupyter started, in MiB."""
        status = Path(f"/proc/{self.manager.provisioner.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextmanager
def installed() -> Iterator[Path]:
    """The folder of a kernelspec that was installed for this run only."""
    with tempfile.TemporaryDirectory() as prefix:
        subprocess.run(
            [BINARY, "install", "--prefix", prefix], check=True, env=environment(), stdout=subprocess.DEVNULL
        )
        yield Path(prefix) / "share" / "jupyter" / "kernels"


BARE, OURS = "python3", "outlast"
DISPLAYS = "from IPython.display import display\nfor i in range({n}): display({{'text/plain': 'x'}}, raw=True)"
PRINTS = "for i in range({n}): print('x', flush=True)"
LARGER = "text = 'x' * 10240\nfor i in range({n}): print(text, flush=True)"
BURST = 3000  # messages
REST = 3  # seconds, after which a kernel that was started is idle
LARGE = "text = 'x' * (1 << 20)\nfor i in range(64): print(text)"


def starts(specs: Path, times: int) -> dict[str, dict[str, list[float]]]:
    """Times from the start of the process, in ms: to kernel_info, and to the end of the first cell."""
    found = {name: {"info": [], "first": []} for name in (BARE, OURS)}
    for _ in range(times + 1):  # the first warms disks and caches
        for name in (BARE, OURS):
            kernel = Kernel(specs, name)
            kernel.info()
            found[name]["info"].append(kernel.since_start() * 1000)
            kernel.reply(kernel.client.execute("pass"))
            found[name]["first"].append(kernel.since_start() * 1000)
            kernel.close()
    return {name: {what: values[1:] for what, values in lists.items()} for name, lists in found.items()}


def interleaved(kernels: dict[str, Kernel], rounds: int, measure: Callable[[Kernel], list[float]]) -> dict[str, list]:
    """What measure gives for each kernel, in turns."""
    found: dict[str, list[float]] = {name: [] for name in kernels}
    for i in range(rounds):
        for name in sorted(kernels, reverse=bool(i % 2)):
            found[name] += measure(kernels[name])
    return found


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def row(what: str, bare: float, ours: float, unit: str, target: str) -> str:
    return f"{what:<34} {bare:>10.2f} {ours:>10.2f} {unit:<6} {ours / bare:>6.2f}×  {target}"


def trips(kernels: dict[str, Kernel], rounds: int) -> list[str]:
    for kernel in kernels.values():
        for _ in range(50):
            kernel.run("pass")
    replies = interleaved(kernels, 4 * rounds, lambda k: [k.run("pass")[0] * 1000 for _ in range(100)])
    idles = interleaved(kernels, 4 * rounds, lambda k: [k.run("pass")[1] * 1000 for _ in range(100)])
    infos = interleaved(kernels, rounds, lambda k: [k.info() * 1000 for _ in range(50)])
    rows = []
    for what, values, percent, target in (
        ("execute, reply, p50", replies, 50, "≤ 1.05×"),
        ("execute, reply, p99", replies, 99, "≤ 1.10×"),
        ("execute, idle, p50", idles, 50, "≤ 1.05×"),
        ("execute, idle, p99", idles, 99, "≤ 1.10×"),
        ("kernel_info, p50", infos, 50, ""),
    ):
        rows.append(row(what, percentile(values[BARE], percent), percentile(values[OURS], percent), "ms", target))
    return rows


def rates(specs: Path, rounds: int) -> list[str]:
    """Rates of kernels that take turns, each new: one start of a Python is faster than another."""
    found: dict[str, dict[str, list]] = {BARE: {}, OURS: {}}
    for i in range(rounds):
        for name in sorted(found, reverse=bool(i % 2)):
            kernel = Kernel(specs, name)
            kernel.client.wait_for_ready(timeout=PATIENCE)
            for what, values in floods(kernel).items():
                found[name].setdefault(what, []).extend(values)
            kernel.close()
    lost = "".join(f"; {n} lost {sum(found[n]['lost']):,} messages" for n in (BARE, OURS) if sum(found[n]["lost"]))
    return [
        row(name, *(statistics.median(found[n][what]) for n in (BARE, OURS)), unit, target)
        for name, what, unit, target in (
            ("display_data", "display", "1/s", "≥ 1.00×" + lost),
            ("flushed prints", "prints", "1/s", "≥ 1.00×" + lost),
            ("flushed prints, taken each ms", "rested", "1/s", ""),
            ("flushed prints of 10 KiB", "larger", "1/s", ""),
            ("64 MiB of output", "large", "s", "≤ 1.10×"),
        )
    ]


def floods(kernel: Kernel) -> dict[str, list]:
    """What much output of each kind takes, in one turn of a kernel."""
    for _ in range(20):
        kernel.run("pass")
    found: dict[str, list] = {"lost": [0], "large": []}
    kinds = (("display", DISPLAYS, 0), ("prints", PRINTS, 0), ("rested", PRINTS, 0.001), ("larger", LARGER, 0))
    for what, code, rest in kinds:
        found[what] = []
        for _ in range(4):
            took, count, _ = kernel.drain(code.format(n=BURST), rest)
            found[what].append(count / took)
            found["lost"][0] += max(0, BURST + 3 - count)
    for _ in range(3):
        took, _, size = kernel.drain(LARGE)
        found["large"].append(took * (64 << 20) / size)
    return found


def growth(kernel: Kernel, messages: int) -> str:
    """Memory before and after many messages."""
    kernel.drain(PRINTS.format(n=20_000))
    before = kernel.resident()
    for _ in range(max(1, messages // 20_000)):
        kernel.drain(PRINTS.format(n=20_000))
    after = kernel.resident()
    return f"memory after {messages:,} messages: {before:.1f} -> {after:.1f} MiB (target: no growth)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6, help="how often each kernel has its turn")
    parser.add_argument("--starts", type=int, default=4, help="how often each kernel is started")
    parser.add_argument("--messages", type=int, default=100_000, help="how many messages memory is watched for")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    with installed() as specs:
        begun = starts(specs, options.starts)
        kernels = {name: Kernel(specs, name) for name in (BARE, OURS)}
        for kernel in kernels.values():
            kernel.client.wait_for_ready(timeout=PATIENCE)
            kernel.run("pass")
        time.sleep(REST)
        idle = kernels[OURS].resident()
        lines = [
            row("start to kernel_info", *(statistics.median(begun[n]["info"]) for n in (BARE, OURS)), "ms", "≤ 60 ms"),
            row("start to first cell", *(statistics.median(begun[n]["first"]) for n in (BARE, OURS)), "ms", "≤ 1.05×"),
            *trips(kernels, options.rounds),
        ]
        kernels[BARE].close()
        grown = growth(kernels[OURS], options.messages)
        kernels[OURS].close()
        lines += rates(specs, options.rounds)
        print(f"{'':<34} {'ipykernel':>10} {'outlast':>10} {'':<6} {'ratio':>7}  target")
        print("\n".join(lines), flush=True)
        print(f"memory of the Go process, idle: {idle:.1f} MiB (target: 25)")
        print(grown)
        if options.json:
            options.json.write_text(json.dumps(lines, ensure_ascii=False))


if __name__ == "__main__":
    main()
