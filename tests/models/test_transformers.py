"""A small ViT and a small ConvNeXt of transformers: in, through the verbs' parts, out again, and trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import doorward as dw
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.inversion.search.frozen import Frozen
from doorward.models.files import save_classifier, save_like
from doorward.models.open.load import load_model
from doorward.models.train.job import TrainRequest, train_to_folder
from doorward.models.train.settings import TrainSettings
from doorward.models.train.start import from_weights
from tests.conftest import make_images

transformers = pytest.importorskip("transformers", reason="transformers (doorward[hf]) is not installed")
SIZE = (3, 16, 16)
SCALED = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 16, "width": 16}}


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    names = {"id2label": {0: "cat", 1: "dog", 2: "frog"}, "label2id": {"cat": 0, "dog": 1, "frog": 2}}
    if kind == "vit":
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16,
            patch_size=4, **names,
        )  # fmt: skip
        return transformers.ViTForImageClassification(config).eval()
    config = transformers.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4, **names)
    return transformers.ConvNextForImageClassification(config).eval()


@pytest.fixture(params=["vit", "convnext"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make(request.param).save_pretrained(tmp_path / request.param)
    (tmp_path / request.param / "preprocessor_config.json").write_text(json.dumps(SCALED))
    return tmp_path / request.param


@pytest.fixture
def photos() -> ImageSet:
    images = make_images(shape=(16, 16, 3))
    return ImageSet(images.pixels, images.labels, ("dog", "cat", "frog"), "photos")


def theirs(folder: Path, x: torch.Tensor) -> torch.Tensor:
    """What the user's own script computes."""
    net = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return net((x - 0.5) / 0.25).logits  # type: ignore[no-any-return]


def test_in_through_and_out_again(folder: Path, photos: ImageSet, tmp_path: Path) -> None:
    model = load_model(folder)
    told = model.describe()
    assert told["features"] == 32 and told["feature_layer"] == "classifier" and told["input"] == list(SIZE)
    assert told["mean"] == [0.5] * 3 and told["std"] == [0.25] * 3 and told["classes_from"] == "config.json"
    x = torch.rand(2, *SIZE)
    assert model.classes == ("cat", "dog", "frog") and torch.allclose(model.logits(x), theirs(folder, x), atol=1e-5)
    with model.watching_features() as seen:
        logits = model.logits(x)
    assert torch.allclose(model.net.classifier(seen[0]), logits, atol=1e-5)  # type: ignore[operator]
    frozen = Frozen(model, "fp32")
    assert torch.allclose(frozen.logits(frozen.normalise(x.permute(0, 2, 3, 1))), logits, atol=1e-5)
    matched = dw.models.open.matching.match_classes(photos, model)
    assert matched.classes == model.classes and matched.labels.tolist()[:3] == [1, 0, 2]
    trained = dw.train(matched, start=model, settings=TrainSettings(epochs=2, batch=20, optimiser="adam", lr=1e-3))
    out, notes = save_like(trained, folder, None, tmp_path / "out")
    assert not notes and load_file(out / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    assert (out / "config.json").read_text() == (folder / "config.json").read_text()
    assert torch.allclose(theirs(out, x), trained.logits(x), atol=1e-5), "the user's own script sees the same"
    again = load_model(out)
    assert (again.predict(photos.pixels) == trained.predict(photos.pixels)).all()


def test_weights_and_configuration_in_two_places(folder: Path) -> None:
    moved = folder.parent / "elsewhere.safetensors"
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, moved)
    x = torch.rand(2, *SIZE)
    model = load_model(moved, arch=f"hf:{folder}")
    assert torch.allclose(model.logits(x), theirs(folder, x), atol=1e-5)
    name = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != name}, folder / "model.safetensors")
    with pytest.raises(DoorwardError, match=r"has no tensor '.*' \(1 missing\); expected the weights of its config"):
        load_model(folder)
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, folder / "model.safetensors")
    with pytest.raises(DoorwardError, match="holds NaN or infinity"):
        load_model(folder)


def test_fresh_and_given_weights_are_trained(folder: Path, photos: ImageSet, tmp_path: Path) -> None:
    model = dw.train(photos, f"hf:{folder}", TrainSettings(epochs=1, batch=20, optimiser="adam", lr=1e-3))
    (tmp_path / "kept").mkdir()
    save_classifier(model, tmp_path / "kept")
    again = load_model(tmp_path / "kept")
    assert (again.predict(photos.pixels) == model.predict(photos.pixels)).all() and again.classes == photos.classes
    start, notes = from_weights(folder, None, make_images(classes=5, shape=(16, 16, 3)))
    assert "weights for 3 classes; the head is replaced by one for the 5 of made-up" in notes[0]
    assert start.mean == (0.5,) * 3 and start.check() == 32 and len(start.classes) == 5
    request = TrainRequest(source="mnist-5k", weights=str(folder), training={"epochs": 1, "lr": 1e-3})
    told: list[str] = []
    results = train_to_folder(request.model_copy(update={"split": "test"}), tmp_path / "run", tell=told.append)
    assert [t for t in told if "resized to 16 x 16" in t] and [t for t in told if "grey images" in t]
    assert results is not None and results.notes and len(load_model(tmp_path / "run").classes) == 10


def test_no_code_of_a_folder_is_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('run')\nclass Net: pass\n")
    config = json.loads((folder / "config.json").read_text())
    remote = {"AutoConfig": "evil.Net", "AutoModelForImageClassification": "evil.Net"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": remote}))
    with pytest.raises(DoorwardError, match=r"expected an image classifier of transformers") as told:
        load_model(folder)
    assert "\n" not in str(told.value)


def test_a_folder_that_leads_elsewhere_or_is_too_large_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"

    def refused(told: str, **changed: object) -> None:
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(DoorwardError, match=told) as error:
            load_model(folder)
        assert "\n" not in str(error.value)

    for name in ("num_hidden_layers", "depths", "num_experts"):
        refused("expected at most 4,096", **{name: [10**9] if name == "depths" else 10**9})
    refused("numbers for a net of", **({"hidden_sizes": [16, 3000]} if "depths" in config else {"hidden_size": 32_000}))
    refused("expected weights as plain numbers", quantization_config={"quant_method": "gptq"})
    (folder / "config.json").write_text(json.dumps(config))
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DoorwardError, match="is a link that leaves"):
        load_model(folder)
    weights.unlink()
    for name in ("../elsewhere", "/etc/passwd", "sub/x.safetensors", 3, "none.safetensors"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(DoorwardError, match="weight_map|No such file"):
            load_model(folder)


def test_a_folder_of_hugging_faces_cache_is_all_links_and_is_read(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "1f", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    assert load_model(snapshot).classes == ("cat", "dog", "frog")
