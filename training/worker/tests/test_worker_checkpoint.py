"""What stands in a checkpoint's files, and who can read them."""

from __future__ import annotations

import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worker_rig
from outlast import _checkpoint, _files, _state
from resume_rig import write_manifest

numpy = pytest.importorskip("numpy", reason="numpy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

Run = Callable[..., worker_rig.Ended]


def saved(folder: Path, **objects: Any) -> dict[str, Any]:
    """Writes objects as a checkpoint does."""
    for name, value in objects.items():
        _state.check(name, value)
    written = _checkpoint.write(folder, objects)
    return {"step": 1, **written}


def restored(folder: Path, state: dict[str, Any], **objects: Any) -> dict[str, Any]:
    """Reads them into other objects."""
    _checkpoint.restore(folder, state, objects, "cpu")
    return objects


def test_a_module_is_read_by_torch_load_alone(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    saved(tmp_path, model=model)
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())


def test_arrays_are_read_by_numpy_alone(tmp_path: Path) -> None:
    array = numpy.arange(6.0).reshape(2, 3).T  # not contiguous
    state = saved(tmp_path, one=array, many={"a": array, "b": numpy.float32(2) * array})
    assert state["files"] == {"one": "one.npy", "many": "many.npz"}
    assert numpy.array_equal(numpy.load(tmp_path / "one.npy", allow_pickle=False), array)
    assert numpy.array_equal(numpy.load(tmp_path / "many.npz", allow_pickle=False)["a"], array)


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 4),
        torch.randn(4, 3).t(),
        torch.tensor(2.5),
        torch.tensor([]),
        torch.randn(3).to(torch.bfloat16),
        torch.randn(3).half(),
        torch.tensor([1, 2, 3]),
        torch.tensor([True, False]),
        torch.randn(3, dtype=torch.complex64),
        torch.eye(4).to_sparse(),
        torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8),
    ],
    ids=["plain", "transposed", "scalar", "empty", "bf16", "fp16", "int", "bool", "complex", "sparse", "quantized"],
)
def test_tensors_of_every_kind_come_back(value: Any, tmp_path: Path) -> None:
    state = saved(tmp_path, one=value, inside={"deep": [{"here": value}]})
    write_manifest(tmp_path)  # quantised ones need more of pickle than weights
    one = value.clone() if value.is_sparse or value.is_quantized else torch.zeros_like(value)
    got = restored(tmp_path, state, one=one, inside={})
    for found in (got["one"], got["inside"]["deep"][0]["here"]):
        assert found.dtype == value.dtype
        dense = [t.to_dense() if t.is_sparse else t.dequantize() if t.is_quantized else t for t in (found, value)]
        assert torch.equal(*dense)


def test_a_part_of_a_large_tensor_does_not_take_it_along(tmp_path: Path) -> None:
    saved(tmp_path, part=torch.zeros(1_000_000)[:10])
    assert (tmp_path / "part.pt").stat().st_size < 10_000


def test_tensors_that_share_memory_are_written_once_and_share_it_again(tmp_path: Path) -> None:
    large = torch.randn(100_000)
    state = saved(tmp_path, both={"a": large, "b": large})
    assert (tmp_path / "both.pt").stat().st_size < 1.1 * large.numel() * 4
    both = restored(tmp_path, state, both={})["both"]
    assert both["a"].data_ptr() == both["b"].data_ptr()


def test_what_is_there_is_written_into_not_replaced(tmp_path: Path) -> None:
    state = saved(tmp_path, all={"w": torch.ones(2), "deep": [torch.ones(3)], "n": 1, "rng": random.Random(3)})
    weight, inner, rng = torch.zeros(2, requires_grad=True), torch.zeros(3), random.Random(4)
    deep, everything = [inner], {}
    everything.update(w=weight, deep=deep, n=0, rng=rng, gone=5)
    restored(tmp_path, state, all=everything)
    assert list(everything) == ["w", "deep", "n", "rng"]
    assert everything["w"] is weight
    assert weight.tolist() == [1, 1]
    assert everything["deep"] is deep
    assert deep[0] is inner
    assert inner.tolist() == [1, 1, 1]
    assert rng.random() == random.Random(3).random()


@pytest.mark.parametrize(
    "value",
    [{1: "a", "b": (1, 2)}, [float("nan"), float("inf")], {"x": numpy.float64(1.5)}, {"file": numpy.ones(2)}, [{1, 2}]],
    ids=["keys and tuples", "nan", "numpy number", "a name that numpy takes", "set"],
)
def test_containers_come_back_as_they_were(value: Any, tmp_path: Path) -> None:
    state = saved(tmp_path, value=value)
    write_manifest(tmp_path)
    got = restored(tmp_path, state, value=type(value)())["value"]
    assert repr(got) == repr(value)


class Odd:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["ODD"],))


@pytest.mark.parametrize("name", ["value.pt", "value.pkl"])
@pytest.mark.parametrize("manifest", ["none", "of another file", "right"])
def test_only_what_the_manifest_lists_is_unpickled(
    name: str, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", str(tmp_path / "ran"))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save = torch.save if name == "value.pt" else lambda value, path: path.write_bytes(pickle.dumps(value))
    if manifest == "of another file":
        save([3], folder / name)
        write_manifest(folder)
    save([Odd()], folder / name)
    if manifest == "right":
        write_manifest(folder)
        _files.load(folder / name)
    else:
        with pytest.raises(ValueError, match="does not match"):
            _files.load(folder / name)
    assert (tmp_path / "ran").exists() == (manifest == "right")


def test_a_file_of_another_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outlast.json").write_text(json.dumps({"step": 1, "files": {"a": "../a.pkl"}}))
    with pytest.raises(ValueError, match="another folder"):
        _checkpoint.read(tmp_path)


def test_another_shape_is_refused_not_broadcast(tmp_path: Path) -> None:
    state = saved(tmp_path, weight=torch.ones(1), array=numpy.ones(1))
    with pytest.raises(ValueError, match=r"shape \(4,\), but \(1,\)"):
        restored(tmp_path, state, weight=torch.zeros(4))
    with pytest.raises(ValueError, match=r"shape \(4,\), but \(1,\)"):
        restored(tmp_path, state, array=numpy.zeros(4))


# On a GPU that has bf16 there is nothing to scale; the next one may have fp16 only.
@pytest.mark.parametrize("was", [False, True], ids=["was off", "was on"])
@pytest.mark.parametrize("now", [False, True], ids=["is off", "is on"])
def test_a_gradient_scaler_comes_back_also_for_another_precision(
    was: bool, now: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(torch.amp, "GradScaler"):
        monkeypatch.setattr("torch.cuda.amp.grad_scaler.amp_definitely_not_available", lambda: False)

    def scaler(on: bool, scale: float) -> Any:
        if hasattr(torch.amp, "GradScaler"):
            return torch.amp.GradScaler("cpu", init_scale=scale, enabled=on)
        return torch.cuda.amp.GradScaler(init_scale=scale, enabled=on)

    state = saved(tmp_path, scaler=scaler(was, 4.0))
    found = restored(tmp_path, state, scaler=scaler(now, 8.0))["scaler"]
    assert found.get_scale() == (1.0 if not now else 4.0 if was else 8.0)


def test_a_module_without_its_state_is_refused(tmp_path: Path) -> None:
    state = saved(tmp_path, model=torch.nn.Identity())
    with pytest.raises(RuntimeError, match="Missing key"):
        restored(tmp_path, state, model=torch.nn.Linear(2, 1))


@pytest.mark.parametrize(
    "value", [0.5, "text", torch.nn.Linear, object(), (1, 2), numpy.array([object()])], ids=lambda v: type(v).__name__
)
def test_what_cannot_be_saved_is_refused_when_it_is_tracked(value: Any) -> None:
    with pytest.raises(TypeError, match="value="):
        _state.check("value", value)


def test_what_turns_out_not_to_be_savable_names_the_object(run: Run) -> None:
    ended = run("import torch\njob.track(bag={'f': lambda: 0})\nfor step in job.steps(1): pass")
    assert ended.one("failed")["message"].startswith("job.track(bag=...)")


def test_objects_of_the_programs_own_come_back(run: Run) -> None:
    source = (
        "import signal, torch\nclass Note:\n    def __init__(self): self.text = 'first'\n"
        "notes = [Note()]\njob.track(notes=notes)\nprint(notes[0].text)\n"
        "for step in job.steps(2):\n    notes[0].text = 'second'\n"
        "    if step == job.params.get('pause_in'): signal.raise_signal(signal.SIGTERM)"
    )
    first = run(source, params={"pause_in": 0})
    write_manifest(Path(first.checkpoint["path"]))
    assert run(source, checkpoint=first.checkpoint).output == "second\n"


def test_a_worker_killed_while_it_stages_leaves_nothing_that_looks_complete(run: Run, tmp_path: Path) -> None:
    ended = run(
        "import os, signal, torch\n"
        "class Deadly:\n"
        "    def state_dict(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def load_state_dict(self, state): pass\n"
        "job.track(weight=torch.ones(3), deadly=Deadly())\n"
        "for step in job.steps(1): pass"
    )
    assert ended.status == -9
    assert ended.all("checkpoint") == []
    left = list((tmp_path / "attempt-1" / "staging").iterdir())
    assert [p.name for p in left] == [".1-1.part"]
    assert not (left[0] / "outlast.json").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_tensors_of_a_gpu_are_read_without_one(tmp_path: Path) -> None:
    state = saved(tmp_path, model=torch.nn.Linear(2, 2).cuda(), box={"t": torch.ones(2).cuda()})
    assert torch.load(tmp_path / "model.pt")["weight"].device.type == "cpu"
    _checkpoint.restore(tmp_path, state, {"box": (box := {})}, "cuda")
    assert box["t"].device.type == "cuda"


def test_a_file_says_cpu_of_every_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As far as it can be shown without a GPU: our tagger comes before torch's own.
    def never(_: Any) -> str:
        raise AssertionError("torch's own tagger was asked")

    _files._on_cpu.register(torch)
    others = [(p, t if p == 5 else never, d) for p, t, d in torch.serialization._package_registry]
    monkeypatch.setattr(torch.serialization, "_package_registry", others)
    saved(tmp_path, weight=torch.ones(2))
    assert not _files._on_cpu.active


def test_nothing_of_the_state_is_copied_for_saving() -> None:
    model, weights = torch.nn.Linear(3, 3), [torch.ones(3)]
    assert _state.get(model)["weight"].data_ptr() == model.weight.data_ptr()
    assert _state.get(weights)[0] is weights[0]
