"""Trains a plan of small models again and again, and does everything to it that a machine can do.

Every round follows from two numbers, the seed and its own; how the processes
happen to interleave does not. Figures are printed at the end.

    python scripts/chaos.py --rounds 200 --seed 1 --minutes 60
    python scripts/chaos.py --seed 1 --only 17         one round again
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import chaos_rig
import rig
from chaos_plan import schedule


class Tally:
    """What all rounds together have done."""

    def __init__(self) -> None:
        self.rounds, self.failed, self.asked, self.with_torch = 0, [], 0, 0
        self.parallel: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.damages: Counter[str] = Counter()

    def add(self, r: chaos_rig.Round, failed: bool) -> None:
        """Counts a round."""
        self.rounds += 1
        self.with_torch += r.schedule.torch
        self.parallel[r.schedule.parallel] += 1
        self.asked += r.watch.asked
        self.done += r.done
        self.damages += Counter(f"{d['how']} {'in the store' if d['store'] else 'on disk'}" for d in r.damaged)
        if failed:
            self.failed.append(r.schedule.number)

    def table(self, seconds: float, seed: int) -> str:
        """The figures, as text."""
        rows = [
            ("rounds", self.rounds),
            ("  with torch", self.with_torch),
            *((f"  --parallel {k}", n) for k, n in sorted(self.parallel.items())),
            ("  failed", f"{len(self.failed)} {sorted(self.failed) or ''}"),
            ("faults", sum(n for k, n in self.done.items() if not k.startswith("nothing"))),
            *((f"  {k}", n) for k, n in sorted(self.done.items())),
            ("damaged files", sum(self.damages.values())),
            *((f"  {k}", n) for k, n in sorted(self.damages.items())),
            ("status asked", self.asked),
            ("minutes", f"{seconds / 60:.1f}"),
            ("seed", seed),
        ]
        return "\n".join(f"{name:<34} {value}" for name, value in rows)


def one(number: int, args: argparse.Namespace, campaign: chaos_rig.Campaign, tally: Tally) -> None:
    """One round, in folders that are kept if it fails."""
    folder = args.folder / f"round-{number}"
    began, failed = time.monotonic(), ""
    with chaos_rig.small_disk(folder / "disk"):
        r = chaos_rig.Round(schedule(args.seed, number), folder, campaign)
        try:
            r.go()
        except Exception:
            failed = traceback.format_exc()
            shutil.copytree(r.disk, folder / "kept", symlinks=True, dirs_exist_ok=True)
    tally.add(r, bool(failed))
    faults = ", ".join(f"{k} {n}" for k, n in r.done.items())
    print(f"{'FAILED' if failed else 'ok'} {number} in {time.monotonic() - began:.1f} s: {faults}", flush=True)
    if failed:
        again = f"python scripts/chaos.py --seed {args.seed} --only {number}"
        print(f"{failed}\n{r.schedule}\nkept in {folder}\nagain: {again}", flush=True)
    else:
        shutil.rmtree(folder)


def main() -> int:
    """Runs the rounds and prints the table; the status is 1 if one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, default=1, help="what the schedules follow from (1)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no round after so many minutes (60)")
    parser.add_argument("--first", type=int, default=1, help="number of the first round (1)")
    parser.add_argument("--only", type=int, help="this round alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="rounds at a time (one a core)")
    args = parser.parse_args()
    args.folder = Path(tempfile.mkdtemp(prefix="outlast-chaos-"))
    numbers = [args.only] if args.only else range(args.first, args.first + args.rounds)
    cache, kernels = args.folder / "cache", args.folder / "prefix"
    rig.outlast("install", "--prefix", kernels)
    specs = kernels / "share" / "jupyter" / "kernels"
    campaign = chaos_rig.Campaign(chaos_rig.reference(args.folder / "reference", cache), cache, specs)
    tally, began = Tally(), time.monotonic()

    def bounded(number: int) -> None:
        if time.monotonic() - began < args.minutes * 60:
            one(number, args, campaign, tally)

    with ThreadPoolExecutor(max(1, args.jobs)) as pool:
        list(pool.map(bounded, numbers))
    print(tally.table(time.monotonic() - began, args.seed))
    if not tally.failed:
        shutil.rmtree(args.folder)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
