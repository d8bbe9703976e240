"""The invariants of the chaos test: what must hold whatever was done to a run."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rig
from chaos_plan import BROKEN, EFFECTIVE, FITS, GREEDY, RUN

MARK = "OUTLAST_CHAOS_MARK"  # in the environment of all that a round starts
STATES = {"pending", "running", "paused", "done", "failed"}
CAUSES = {"done", "paused", "lost", "killed", "error", "device_oom", "disk_full"}

# Every path that docs/formats.md names, below a run's folder.
MODEL = r"models/[^/]+/"
ON_DISK = (
    r"(run|state|lineage|mirrored|learnt)\.json|ledger\.jsonl|supervisor\.(lock|log)|code/train\.py"
    rf"|{MODEL}(metrics\.jsonl|log\.txt|worker\.lock|model\.json|job\.json|work/.*)"
    rf"|{MODEL}(checkpoints/\d+|final)(\.damaged(-\d+)?)?/[^/]+"
    rf"|{MODEL}(g\d+-[^/]+|superseded/[^/]+)/.*"
)
IN_STORE = (
    r"(run|generation|learnt)\.json|ledger\.jsonl"
    rf"|{MODEL}(metrics\.jsonl|log\.txt|(checkpoints/\d+(\.\d+)?|final)/[^/]+|superseded/.*)"
)
# What a killed writer leaves in a store stays for two days: it may be another machine's.
HALF_WRITTEN = r"\.outlast-tmp-\d+"


class ViolationError(AssertionError):
    """An invariant that does not hold."""


def hold(condition: object, text: str) -> None:
    """Raises unless condition holds."""
    if not condition:
        raise ViolationError(text)


def marked(mark: str) -> list[int]:
    """The processes that a round has started, and what they have started."""
    needle, found = f"{MARK}={mark}".encode(), []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if needle in environ.read_bytes() and rig.alive(pid := int(environ.parent.name)):
                found.append(pid)
        except (OSError, ValueError):
            continue
    return found


class Watch:
    """Asks for the status all the time, and judges every answer."""

    def __init__(self, r) -> None:
        self.round, self.asked = r, 0
        self.wrong: list[str] = []
        self._done: set[str] = set()
        self._forgiven: set[str] = set()
        self._quiet = threading.Lock()
        self._end = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watches as long as the block runs."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(60)

    @contextmanager
    def blind(self) -> Iterator[None]:
        """Looks away: the run's folder goes, and another one comes."""
        with self._quiet:
            yield
            self._done.clear()

    def forget(self, model: str) -> None:
        """Lets a model be unfinished again: its result was damaged."""
        self._forgiven.add(model)

    def _watch(self) -> None:
        while not self._end.wait(0.15):
            with self._quiet:
                done = rig.outlast(
                    "status", RUN, "--dir", self.round.data, "--json", env=self.round.unmarked, check=False
                )
                self.asked += 1
                if complaint := self._complaint(done):
                    self.wrong.append(complaint)

    def _complaint(self, answer: subprocess.CompletedProcess[str]) -> str:
        if answer.returncode != 0:
            return f"status ended with {answer.returncode}: {answer.stderr}"
        try:
            state = json.loads(answer.stdout)
        except ValueError as error:
            return f"status is no JSON ({error}): {answer.stdout!r}"
        models = state.get("models", [])
        if [m["name"] for m in models] != self.round.names:
            return f"status has other models: {answer.stdout}"
        for m in models:
            if m["state"] not in STATES or not 0 <= m["step"] <= max(
                m["total_steps"], m["step"] if not m["total_steps"] else 0
            ):
                return f"status says of {m['name']}: {m}"
        done = {m["name"] for m in models if m["state"] == "done"}
        if lost := self._done - done - self._forgiven:
            return f"{lost} had been done, and are not any more"
        self._done = done
        return ""


def ledger(r) -> list[dict]:
    """The ledger; a last line that is torn is left out."""
    lines = (r.data / RUN / "ledger.jsonl").read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]


def ledger_length(r) -> int:
    """How many entries the ledger has."""
    try:
        return len(ledger(r))
    except FileNotFoundError:
        return 0


def noticed(r, damage: dict) -> bool:
    """Whether the ledger tells of a damaged checkpoint on this disk."""
    told = f"{damage['model']}: the "
    after = ledger(r)[damage["ledger"] :]
    return any(e["type"] == "note" and told in e["message"] and " is damaged" in e["message"] for e in after)


def digest(final: Path) -> str:
    """A digest of every trained parameter, bit for bit."""
    import numpy as np

    if (final / "model.pt").exists():
        return rig.digest(final)
    if (final / "model.npz").exists():
        with np.load(final / "model.npz") as arrays:
            return repr([(k, arrays[k].tobytes()) for k in sorted(arrays)])
    if (final / "model.npy").exists():
        return repr(np.load(final / "model.npy").tobytes())
    return (final / "model.json").read_text()


def digests(data: Path, env: dict[str, str]) -> dict[str, str]:
    """The digest of every finished model."""
    results = json.loads(rig.outlast("results", RUN, "--dir", data, "--json", env=env, check=False).stdout)
    states = {m["name"]: m["state"] for m in results["models"]}
    want = {n: "failed" if n == BROKEN else "done" for n in states}
    hold(states == want, f"not all are done: { {n: s for n, s in states.items() if want[n] != s} }")
    return {m["name"]: digest(Path(m["final"])) for m in results["models"] if m["state"] == "done"}


def everything(r, reference: dict[str, str]) -> None:
    """All invariants, once a round is over."""
    hold(not r.watch.wrong, f"{len(r.watch.wrong)} wrong answers of status, such as: {r.watch.wrong[:2]}")
    found = digests(r.data, r.unmarked)
    other = [n for n, d in found.items() if reference[n] != d]
    hold(not other, f"the parameters are not those of an undisturbed run: {other}")
    for m in r.plan_models():
        _metrics(r, m)
    _ledger(r)
    _damage(r)
    _processes(r)
    _leftovers(r.data / RUN, ON_DISK)
    _leftovers(r.store / RUN, f"({IN_STORE})({HALF_WRITTEN})?")
    kernels = [p.name for p in r.temp.iterdir() if not (r.kernels and re.match(r"outlast-\d+-", p.name))]
    hold(not kernels, f"left in the folder for temporary files: {kernels}")
    _store(r)


def _metrics(r, model: dict) -> None:
    if model["name"] == BROKEN:
        return
    lines = rig.metrics(r.data, model["name"], RUN)
    steps = [line["step"] for line in lines]
    hold(steps == list(range(model["params"]["steps"])), f"{model['name']}: steps missing or there twice: {steps}")
    if model["name"] == GREEDY:
        hold({line["samples"] for line in lines} == {EFFECTIVE}, "the effective batch was not kept")


def _ledger(r) -> None:
    text = (r.data / RUN / "ledger.jsonl").read_text()
    hold(text.endswith("\n"), "the ledger's last line is torn")
    entries, generation, open_attempts, attempts = ledger(r), 0, {}, {}
    errors: dict[int, int] = {}
    for e in entries:
        hold(e["generation"] >= generation, f"a generation of before: {e}")
        hold(e["type"] != "takeover" or e["generation"] > generation, f"a generation twice: {e}")
        generation, name = e["generation"], e.get("model", "")
        if e["type"] == "start":
            hold(name not in open_attempts, f"two attempts at once: {e}")
            hold(e["attempt"] > attempts.get(name, 0), f"an attempt twice: {e}")
            open_attempts[name], attempts[name] = e, e["attempt"]
        if e["type"] == "end":
            begun = open_attempts.pop(name, None)
            hold(begun and begun["attempt"] == e["attempt"], f"an end without a start: {e}")
            hold(e["cause"] in CAUSES, f"a cause that nobody has given: {e}")
            hold((e["cause"] == "error") <= (name == BROKEN), f"an error that nobody has made: {e}")
            hold((e["cause"] == "device_oom") <= (name == GREEDY), f"a shortage that nobody has made: {e}")
            if e["cause"] == "error":
                errors[generation] = errors.get(generation, 0) + 1
    hold(not open_attempts, f"attempts without an end: {open_attempts}")
    hold(all(n == 1 for n in errors.values()), f"{BROKEN} was tried again: {errors}")
    _greedy(r, entries)


def _greedy(r, entries: list[dict]) -> None:
    mine = [e for e in entries if e.get("model") == GREEDY]
    fit = [e["fit"] for e in mine if e["type"] == "start"][-1:]
    if fit and not r.wiped:  # else it was brought from the store, finished, and the ledger with it from before
        hold(
            (fit[0]["batch_size"], fit[0]["grad_accum"]) == (FITS, EFFECTIVE // FITS),
            f"{GREEDY} was finished with {fit}",
        )
    if not r.wiped:
        ends = [e for e in mine if e.get("cause") == "device_oom"]
        beside = [e for e in ends if "goes on alone" in e["message"]]
        hold(not beside or r.schedule.parallel != "1", f"{GREEDY} had nobody beside it: {beside}")
        alone = [e for e in ends if e not in beside]
        hold(len(alone) == 1, f"{GREEDY} ran out of memory {len(alone)} times: what is learnt is learnt once")
        hold("effective batch stays" in alone[0]["message"], f"it does not say what follows: {alone[0]}")


def _damage(r) -> None:
    entries = ledger(r)
    for d in r.damaged:
        if d["store"] or d["ledger"] > len(entries) or r.wiped > d["wiped"]:
            continue  # judged by the store's check; or the ledger of that machine is gone
        hold(noticed(r, d), f"nobody has noticed: {d}")
        began = [e for e in entries[d["ledger"] :] if e["type"] == "start" and e["model"] == d["model"]]
        hold(d["result"] or not began or began[0].get("from_step", 0) < d["step"], f"it was loaded: {d}")


def _processes(r) -> None:
    r.forget_finder()
    r.wait_no_process()


def _leftovers(root: Path, known: str) -> None:
    paths = [p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()]
    strange = [p for p in paths if not re.fullmatch(known, p)]
    hold(not strange, f"left over in {root}: {strange[:8]}")


def _store(r) -> None:
    """What we have damaged is found, unless it is gone; nothing else is damaged."""
    answer = rig.outlast("store", "verify", r.store, "--json", env=r.unmarked, check=False)
    found = [c for run in json.loads(answer.stdout)["runs"] for c in run["checkpoints"]]
    bad = {c["folder"] for c in found if c["state"] not in ("verified", "half")}
    ours = {}
    for d in r.damaged:
        if d["store"] and d["file"].exists() and d["file"].read_bytes() == d["content"]:
            ours[d["file"].parent.relative_to(r.store).as_posix()] = d
    hold(
        bad == set(ours), f"damaged in the store: {sorted(bad)}; by us: {sorted(ours)}: {answer.stdout if bad else ''}"
    )
    hold((answer.returncode == 0) == (not bad), f"store verify ended with {answer.returncode}")
