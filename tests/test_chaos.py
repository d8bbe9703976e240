"""A few rounds of chaos, always the same ones. `scripts/chaos.py` does as many as one likes."""

from __future__ import annotations

from pathlib import Path

import chaos_rig
import pytest
from chaos_plan import FAULTS, Fault, Schedule, schedule

SEED = 1


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory, kernel_spec: Path) -> chaos_rig.Campaign:
    """What all rounds share: above all the result of a run that nothing disturbs."""
    cache = tmp_path_factory.mktemp("cache")
    return chaos_rig.Campaign(chaos_rig.reference(tmp_path_factory.mktemp("reference"), cache), cache, kernel_spec)


def fault(kind: str, after: int, how: str = "flip", resume: str = "resume") -> Fault:
    return Fault(kind, after, jitter=0.02, pause=0.2, damage=how, pick=0.5, resume=resume, detach=False)


def attack(r: Schedule, folder: Path, campaign: chaos_rig.Campaign) -> chaos_rig.Round:
    """One round; what fails says how to repeat it."""
    attacked = chaos_rig.Round(r, folder, campaign)
    try:
        attacked.go()
    except Exception as error:
        error.add_note(f"the schedule:\n{r}")
        if r.number:
            error.add_note(f"again: python scripts/chaos.py --seed {r.seed} --only {r.number}")
        raise
    return attacked


def test_a_run_survives_the_death_of_every_process(campaign: chaos_rig.Campaign, tmp_path: Path) -> None:
    faults = [
        fault("kill worker", 10),
        fault("kill supervisor", 30, resume="train"),
        fault("kill finder", 20),
        fault("stop supervisor, kill", 30),
        fault("term all", 30, resume="train"),
        fault("kill all", 30),
    ]
    r = attack(Schedule(SEED, 0, faults=faults), tmp_path, campaign)
    assert r.done["nothing: nobody was there"] == 0, r.done


def test_what_is_damaged_is_noticed_on_disk_and_in_the_store(campaign: chaos_rig.Campaign, tmp_path: Path) -> None:
    faults = [
        fault("damage", 30, "flip"),
        fault("damage result", 20, "truncate"),
        fault("damage", 20, "empty"),
        fault("damage store", 30, "empty"),
        fault("wipe", 30),
    ]
    r = attack(Schedule(SEED, 0, faults=faults), tmp_path, campaign)
    assert {d["store"] for d in r.damaged} == {True, False}, "nothing was there to be damaged"


def test_a_full_disk_is_waited_for(campaign: chaos_rig.Campaign, tmp_path: Path) -> None:
    with chaos_rig.small_disk(tmp_path / "disk") as why:
        if why:
            pytest.skip(f"this takes a small disk, and {why}")
        r = attack(Schedule(SEED, 0, faults=[fault("full", 40)]), tmp_path, campaign)
        assert r.done["full"] == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_drawn_round(number: int, campaign: chaos_rig.Campaign, tmp_path: Path) -> None:
    with chaos_rig.small_disk(tmp_path / "disk"):
        attack(schedule(SEED, number), tmp_path, campaign)


def test_every_kind_of_fault_is_drawn_and_always_the_same_way() -> None:
    drawn = [schedule(SEED, n) for n in range(1, 101)]
    assert drawn == [schedule(SEED, n) for n in range(1, 101)]
    assert {f.kind for s in drawn for f in s.faults} == set(FAULTS)
    assert str(drawn[0]) != str(drawn[1])
