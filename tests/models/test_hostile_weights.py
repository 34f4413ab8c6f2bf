"""Weights that mean harm: refused in one line, at once, whatever the container; what only looks odd is read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.tensors import write_tensors
from doorward.models.files import load_classifier, save_classifier
from doorward.models.nets.catalogue import build
from doorward.models.open.foreign import load_foreign
from doorward.models.pickled import check_pickled
from doorward.models.weights import read_weights, write_weights
from tests.models import hostile

SHAPE = (3, 12, 10)
SECONDS = 2.0


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return build("small-cnn", SHAPE, 4).eval()


@pytest.fixture
def folder(net: nn.Module, tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    save_classifier(Classifier(net, "small-cnn", tuple("abcd"), SHAPE, (0.5,), (0.25,)), tmp_path / "model")
    return tmp_path / "model"


def refused(call: Callable[[], object], told: str) -> None:
    started = time.monotonic()
    with pytest.raises(DoorwardError, match=told) as error:
        call()
    assert str(error.value).isprintable() and "expected" in str(error.value)
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("old", [False, True], ids=["archive", "legacy"])
@pytest.mark.parametrize("what", hostile.pickles())
def test_pickles(what: str, old: bool, tmp_path: Path) -> None:
    pickled = hostile.tensor(2**40, old=old) if what == "a large storage" else hostile.pickles()[what]
    (tmp_path / "w.pt").write_bytes(hostile.legacy(pickled) if old else hostile.archive(pickled))
    with pytest.raises(ValueError):
        check_pickled(tmp_path / "w.pt")  # before torch's own reader sees it
    refused(lambda: load_foreign(tmp_path / "w.pt", "small-cnn", SHAPE), "not a plain state dict")


def test_archives(tmp_path: Path) -> None:
    good = hostile.tensor(1)
    for content in (hostile.archive(good), hostile.legacy(hostile.tensor(1, old=True))):
        (tmp_path / "w.pt").write_bytes(content)
        check_pickled(tmp_path / "w.pt")
        assert torch.load(tmp_path / "w.pt", weights_only=True)["a"].shape == (1,)
    odd = (
        hostile.archive(good, compressed=True),
        hostile.archive(good, twice=True),
        hostile.archive(good, behind=b"x"),
        b"PK\x03\x04",
        b"",
    )
    for content in odd:
        (tmp_path / "w.pt").write_bytes(content)
        refused(lambda: load_foreign(tmp_path / "w.pt", "small-cnn", SHAPE), "not a plain state dict")


@pytest.mark.parametrize("old", [False, True], ids=["archive", "legacy"])
def test_what_trainings_leave_is_read(net: nn.Module, old: bool, tmp_path: Path) -> None:
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.rand(2, *SHAPE)).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [3, 4])
    shared = torch.arange(6.0).view(2, 3)
    held = {
        "net": net.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(),
        "rng": torch.get_rng_state(), "size": torch.Size([1, 2]), "weight": nn.Parameter(shared), "view": shared.T[1:],
        "device": torch.device("cpu"), "kind": torch.float32, "bytes": b"ab\xff", "names": {"a", "b"}, "none": None,
        "history": [0.5, [1, (2, 3)], {"x": [True, 2**70]}], "empty": torch.zeros(0, 5), 7: torch.ones(2).bfloat16(),
    }  # fmt: skip
    torch.save(held, tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
    loaded = load_foreign(tmp_path / "w.pt", "small-cnn", SHAPE).net.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in net.state_dict().items())


def test_a_state_dict_is_written_without_a_trace_of_the_process(net: nn.Module, tmp_path: Path) -> None:
    torch.save({"net": net.state_dict(), "epoch": 3}, tmp_path / "w.pt")
    files = []
    for process in (11, 12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda process=process: process)
            write_weights(tmp_path / "new.pt", read_weights(tmp_path / "w.pt"), net)
        files.append((tmp_path / "new.pt").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("what", hostile.tensors())
def test_tensors_that_are_no_plain_floats(what: str, net: nn.Module, folder: Path, tmp_path: Path) -> None:
    state = {**net.state_dict(), "output.bias": hostile.tensors()[what]}
    torch.save(state, tmp_path / "w.pt")
    refused(lambda: load_foreign(tmp_path / "w.pt", "small-cnn", SHAPE), "w.pt: ")
    if what in ("whole numbers", "infinite as float32", "scalar"):
        for path in (tmp_path / "w.safetensors", folder / "weights.safetensors"):
            write_tensors(path, state)
        refused(lambda: load_foreign(tmp_path / "w.safetensors", "small-cnn", SHAPE), "output.bias")
        refused(lambda: load_classifier(folder), "weights.safetensors: tensor 'output.bias'")


def test_halves_doubles_and_counters_as_floats_are_read(net: nn.Module, tmp_path: Path) -> None:
    for kind in (torch.float16, torch.bfloat16, torch.float64, torch.float32):
        write_tensors(tmp_path / "w.safetensors", {k: v.to(kind) for k, v in net.state_dict().items()})
        assert len(load_foreign(tmp_path / "w.safetensors", "small-cnn", SHAPE).classes) == 4


def test_a_net_for_many_classes_takes_no_memory_before_the_weights_fit(tmp_path: Path, net: nn.Module) -> None:
    made = list[int]()
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("output")}
    state |= {"output.weight": torch.zeros(3_000_000, 1, dtype=torch.int8), "output.bias": torch.zeros(4)}
    write_tensors(tmp_path / "w.safetensors", state)

    def factory(shape: tuple[int, int, int], classes: int) -> nn.Module:
        made.append(classes)
        twin = build("small-cnn", shape, classes)
        assert classes <= 10_000 or next(twin.parameters()).is_meta, "memory is taken"
        return twin

    refused(lambda: load_foreign(tmp_path / "w.safetensors", factory, SHAPE), "tensors? of other shapes")
    assert made == [3_000_000]

    def computing(shape: tuple[int, int, int], classes: int) -> nn.Module:
        float(torch.linspace(0, 1, 3)[0])  # what cannot be done without memory
        return build("small-cnn", shape, classes)

    refused(lambda: load_foreign(tmp_path / "w.safetensors", computing, SHAPE), "3,000,000 classes; expected at most")


ABOUT: list[tuple[dict[str, Any], str]] = [
    ({"arch": 3}, "arch 3; expected the name"),
    ({"arch": "timm:hf-hub:some/where"}, "plain name of a timm model"),
    ({"classes": "abcd"}, "classes abcd; expected a list"),
    ({"classes": [1, 2, 3, 4]}, "expected a list of names"),
    ({"classes": ["a"]}, "two names or more"),
    ({"classes": list(map(str, range(100_000)))}, "no tensor is for the 100,000 classes"),
    ({"shape": [3, 12]}, "expected channels, height, width"),
    ({"shape": [3, -1, 10]}, "whole numbers above 0"),
    ({"shape": [3, True, 10]}, "whole numbers above 0"),
    ({"shape": [3, 10**30, 10]}, "whole numbers above 0"),
    ({"shape": "3x3"}, "expected channels, height, width"),
    ({"mean": [0.1, 0.2]}, "mean of 2 numbers for 3 channels"),
    ({"mean": ["0.1"]}, "expected finite numbers"),
    ({"mean": 0.1}, "expected finite numbers"),
    ({"mean": [10**300]}, "expected finite numbers"),
    ({"std": []}, "std above 0"),
    ({"std": [1e-300]}, "std above 0"),
    ({"feature_layer": 3}, "expected text or null"),
    ({"arch_sha256": []}, "expected text or null"),
]


@pytest.mark.parametrize(("changed", "told"), ABOUT, ids=[str(c)[:40] for c, _ in ABOUT])
def test_fields_of_a_folder(changed: dict[str, Any], told: str, folder: Path) -> None:
    path = folder / "classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    refused(lambda: load_classifier(folder), told)


def test_a_net_of_convolutions_alone_takes_no_image_of_any_size(folder: Path) -> None:
    net = build("resnet20", SHAPE, 4)
    save_classifier(Classifier(net, "resnet20", tuple("abcd"), (3, 50_000, 50_000)), folder)
    refused(lambda: load_classifier(folder), "expected at most 256 channels of 4,194,304 pixels")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["classifier.json", "weights.safetensors"])
def test_files_of_a_folder_lie_in_it(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert load_classifier(tmp_path / "link"), "the folder itself may be a link"
    (folder / name).rename(tmp_path / "elsewhere")
    makers: dict[str, Callable[[], object]] = {
        "leaves": lambda: (folder / name).symlink_to(tmp_path / "elsewhere"),
        "device": lambda: (folder / name).symlink_to("/dev/zero"),
        "named pipe": lambda: os.mkfifo(folder / name),
        "folder": lambda: (folder / name).mkdir(),
    }
    for told, make in makers.items():
        make()
        refused(lambda: load_classifier(folder), told)
        (folder / name).rmdir() if told == "folder" else (folder / name).unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "h5"])
def test_pipes_and_devices_are_no_weights(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name, told in (("pipe", "is a named pipe"), ("zero", "is a device")):
        refused(lambda name=name: load_foreign(tmp_path / f"{name}.{suffix}", "small-cnn", SHAPE), told)  # type: ignore[misc]


def _float64(file: Any, at: str) -> None:
    file[at] = np.full((64, 4), 1e300)


KERAS: list[tuple[str, Callable[[Any, Any], object], str]] = [
    ("external link", lambda h, f: f.__setitem__("output", h.ExternalLink("/etc/passwd", "/")), "is a link"),
    ("soft link", lambda h, f: f.__setitem__("output", h.SoftLink("/hidden")), "is a link"),
    ("root", lambda h, f: (f.clear(), f.__setitem__("model_weights", h.SoftLink("/hidden"))), "is a link"),
    ("array for a group", lambda h, f: (f.clear(), f.create_dataset("model_weights", data=np.ones(3))), "no arrays"),
    ("group for an array", lambda h, f: f.create_group("output/kernel:0"), "number of classes"),
    (
        "unwritten",
        lambda h, f: f.create_dataset("output/kernel:0", (64, 10**9), "f4", chunks=(64, 10**5)),
        "256,000,000,000 bytes, for which the file holds 0",
    ),
    ("a large chunk", lambda h, f: f.create_dataset("output/kernel:0", (64, 4), "f4", chunks=(64, 4)), "holds 0"),
    ("another file", lambda h, f: f.create_dataset("output/kernel:0", (64, 4), "f4", external="x"), "another file"),
    ("nothing", lambda h, f: f.__setitem__("output/kernel:0", h.Empty("f4")), "without numbers"),
    (
        "zeros, packed",
        lambda h, f: f.create_dataset("output/bias:0", data=np.zeros(10**6, "f4"), compression="gzip"),
        "'bias' has shape .1000000.",
    ),
    ("infinite as float32", lambda h, f: _float64(f, "output/kernel:0"), "holds NaN or infinity"),
]


@pytest.mark.parametrize(("spoil", "told"), [k[1:] for k in KERAS], ids=[k[0] for k in KERAS])
def test_keras(spoil: Callable[[Any, Any], object], told: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py (doorward[keras]) is not installed")
    net = nn.Sequential()
    net.add_module("flatten", nn.Flatten())
    net.add_module("hidden", nn.Linear(360, 64))
    net.add_module("output", nn.Linear(64, 4))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for name in ("hidden", "output"):
            layer = net.get_submodule(name)
            file[f"{name}/kernel:0"] = layer.weight.detach().T.numpy().astype(">f4")  # the other order of bytes is read
            file[f"{name}/bias:0"] = layer.bias.detach().numpy()  # type: ignore[union-attr, operator]
    loaded = load_foreign(tmp_path / "w.h5", net, SHAPE).net.state_dict()
    assert torch.equal(loaded["output.weight"], net.state_dict()["output.weight"])
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        del file["output"]
        spoil(h5py, file)
        if "output" in file and not isinstance(file.get("output", getlink=True), h5py.SoftLink | h5py.ExternalLink):
            for name, array in (("kernel:0", np.ones((64, 4))), ("bias:0", np.ones(4))):
                if f"output/{name}" not in file:
                    file[f"output/{name}"] = array

    def own(shape: tuple[int, int, int], classes: int) -> nn.Module:
        return net

    refused(lambda: load_foreign(tmp_path / "w.h5", own, SHAPE), told)
