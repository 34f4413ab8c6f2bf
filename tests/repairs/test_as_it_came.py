"""Repaired weights come back in the form that the model came in, for the user's own loading code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from doorward.cli.repair import _show
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.models.nets.catalogue import build
from doorward.models.open.architectures import make_net
from doorward.repairs.job import RepairRequest, repair_to_folder
from doorward.repairs.results import Repair
from doorward.scoring.repairs import score_repair
from tests.conftest import make_images
from tests.inversion.records import write_inversion
from tests.models.test_foreign import keras_twin

FACTORY = """
from torch import nn
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, classes)
    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
def make(classes):
    return Net(classes)
"""
CLASSES = 3


@pytest.fixture
def arch(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FACTORY)
    return f"{tmp_path / 'mine.py'}:make"


def repaired(model: Path, arch: str | None, size: tuple[int, int], tmp_path: Path, share: float = 1.0) -> Repair:
    """The model after one epoch and fresh batch-norm statistics."""
    (tmp_path / "images").mkdir()
    make_images(classes=CLASSES, shape=(*size, 3)).save(tmp_path / "images")
    request = RepairRequest(
        model=str(model),
        arch=arch,
        source=str(tmp_path / "images"),
        mean=None if arch is None else (0.5,),
        std=None if arch is None else (0.25,),
        methods=("fine-tune", "refresh"),
        settings={"fine-tune": {"epochs": 1, "lr": 0.05, "precision": "fp32"}},
        device="cpu",
    )
    repair_to_folder(request, tmp_path / "run")
    return Repair.load(tmp_path / "run")


def unrepaired(model: Path, arch: str | None, size: tuple[int, int], tmp_path: Path) -> Repair:
    """The model with an inversion that accuses no class."""
    images = make_images(classes=CLASSES, shape=(*size, 3))
    (tmp_path / "images").mkdir()
    images.save(tmp_path / "images")
    write_inversion(tmp_path / "silent", images.classes, {"mask": {}}, [], [{}])
    scale: dict[str, Any] = {} if arch is None else {"mean": (0.5,), "std": (0.25,)}
    request = RepairRequest(
        model=str(model), arch=arch, source=str(tmp_path / "images"), triggers=str(tmp_path / "silent"), device="cpu",
        **scale,
    )  # fmt: skip
    repair_to_folder(request, tmp_path / "run")
    return Repair.load(tmp_path / "run")


def place(found: Repair, name: str) -> Path:
    row = next(row for row in found.record.arms if row.name == name)
    assert found.folder is not None and row.folder is not None and row.file is not None
    return found.folder / row.folder / row.file


@torch.no_grad()
def same(classifier: Classifier, theirs: nn.Module | Callable[[Tensor], Tensor], given: nn.Module) -> None:
    """The user's own net gives what the repaired classifier gives, and not what the given one gave."""
    x = torch.rand(4, *classifier.shape)
    logits, scaled = classifier.logits(x), classifier.normalise(x)
    assert torch.allclose(theirs(scaled), logits, atol=1e-5) and not torch.allclose(given(scaled), logits, atol=1e-3)


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_a_net_of_ones_own(kind: str, arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    given, source = make_net(arch, (3, 8, 8), CLASSES).eval(), tmp_path / f"weights{kind}"
    if kind == ".pth":
        torch.save({"state_dict": given.state_dict(), "epoch": 7}, source)
    else:
        save_file(given.state_dict(), source)
    found = repaired(source, arch, (8, 8), tmp_path)
    for name in ("fine-tune", "refresh"):
        file = place(found, name)
        assert file.name == f"repaired{kind}"
        mine = make_net(arch, (3, 8, 8), CLASSES)
        held = load_file(file) if kind == ".safetensors" else torch.load(file, weights_only=True)["state_dict"]
        mine.load_state_dict(held)  # strict: the very names, statistics of batch norm among them
        assert not torch.equal(held["body.1.running_mean"], given.state_dict()["body.1.running_mean"])
        same(found.classifier_of(name, arch=arch), mine.eval(), given)
    assert kind == ".safetensors" or torch.load(place(found, "refresh"), weights_only=True)["epoch"] == 7
    with pytest.raises(DoorwardError, match="which is not run unasked; expected --arch FILE.py:factory"):
        found.classifier_of("refresh")
    scored = score_repair(
        tmp_path / "run", None, make_images(CLASSES, shape=(8, 8, 3), seed=1), arch=arch, device="cpu"
    )
    assert [row.name for row in scored.models] == ["as given", "fine-tune", "refresh"]
    _show(found.record, Path("run"))
    assert f"repaired weights, in the form they came in: run/repaired{kind}" in capsys.readouterr().out
    copy = Repair.load(found.save(tmp_path / "copy"))
    assert place(copy, "refresh").read_bytes() == place(found, "refresh").read_bytes()


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_a_net_with_nothing_to_repair_comes_back_byte_for_byte(
    kind: str, arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    given, source = make_net(arch, (3, 8, 8), CLASSES).eval(), tmp_path / f"weights{kind}"
    if kind == ".pth":
        torch.save({"state_dict": given.state_dict(), "epoch": 7}, source)
    else:
        save_file(given.state_dict(), source)
    found = unrepaired(source, arch, (8, 8), tmp_path)
    assert found.verdict == "nothing found" and found.findings == () and found.record.kept.file == f"repaired{kind}"
    assert (tmp_path / "run" / f"repaired{kind}").read_bytes() == source.read_bytes()
    mine = found.classifier_of("as given", arch=arch).net.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in given.state_dict().items())
    _show(found.record, Path("run"))
    assert f"the weights as they came: run/repaired{kind}" in capsys.readouterr().out
    copy = Repair.load(found.save(tmp_path / "copy"))
    assert (tmp_path / "copy" / f"repaired{kind}").read_bytes() == source.read_bytes() and copy.verdict == found.verdict


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers (doorward[hf]) is not installed")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=4,
        num_labels=CLASSES,
    )  # fmt: skip
    given, source = transformers.ViTForImageClassification(config).eval(), tmp_path / "vit"
    given.save_pretrained(source)
    scaled = {
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
        "size": {"height": 16, "width": 16},
    }
    (source / "preprocessor_config.json").write_text(json.dumps(scaled))
    (tmp_path / "whole").mkdir()
    unrepaired(source, None, (16, 16), tmp_path / "whole")
    kept = tmp_path / "whole" / "run" / "repaired"
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == {p.name: p.read_bytes() for p in source.iterdir()}
    found = repaired(source, None, (16, 16), tmp_path)
    folder = place(found, "fine-tune")
    assert folder.name == "repaired" and (folder / "config.json").is_file()
    assert (folder / "preprocessor_config.json").is_file()
    mine = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    same(found.classifier_of("fine-tune"), lambda x: mine(x).logits, lambda x: given(x).logits)  # type: ignore[arg-type]
    scored = score_repair(tmp_path / "run", None, make_images(CLASSES, shape=(16, 16, 3), seed=1), device="cpu")
    assert scored.models[0].name == "as given"
    copy = Repair.load(found.save(tmp_path / "copy"))
    assert (place(copy, "fine-tune") / "model.safetensors").is_file()
    same(copy.classifier_of("fine-tune"), lambda x: mine(x).logits, lambda x: given(x).logits)  # type: ignore[arg-type]


def test_weights_of_keras(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="h5py (doorward[keras]) is not installed")
    torch.manual_seed(1)
    given = build("deepid", (3, 40, 36), CLASSES).eval()
    keras_twin(tmp_path / "w.h5", given, nested=True)
    found = repaired(tmp_path / "w.h5", "deepid", (40, 36), tmp_path)
    file = place(found, "fine-tune")
    from doorward.models.open.keras_weights import load_keras

    mine = build("deepid", (3, 40, 36), CLASSES)
    load_keras(mine, file, (3, 40, 36))
    assert file.name == "repaired.h5"
    same(found.classifier_of("fine-tune"), mine.eval(), given)
