"""Photographs of many sizes and nets of every kind, through every verb as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import doorward as dw
from doorward.models.train.settings import TrainSettings
from tests.cli.conftest import Call

SIDE, NAMES = 24, ("apple", "bear", "cloud", "drum")
MINE = """
from torch import nn

def make_net(shape, classes):
    return nn.Sequential(nn.Conv2d(shape[0], 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 5, 2, 2),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, classes))
"""
KINDS = ("folder", "built-in", "state dict", "safetensors", "keras", "vit", "convnext", "timm")


def draw(folder: Path, count: int, seed: int) -> Path:
    """Pictures of several sizes and modes; the class shows in the colour."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = rng.integers(24, 60, 2)
            pixels = rng.integers(0, 90, (height, width, 3))
            pixels[..., label % 3] += 80 + 60 * (label // 3)
            image = Image.fromarray(pixels.astype(np.uint8))
            image = image.convert("RGBA") if number % 7 == 0 else image
            image.save(folder / name / f"{name}-{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own")
    for name, count, seed in (("photos", 25, 1), ("clean", 20, 2), ("incoming", 3, 3)):
        draw(place / name, count, seed)
    for path in sorted((place / "incoming").rglob("*.png")):  # unlabelled
        path.rename(place / "incoming" / path.name)
    for name in NAMES:
        (place / "incoming" / name).rmdir()
    (place / "mine.py").write_text(MINE)
    return place


def fresh(kind: str, place: Path) -> nn.Module | str:
    if kind in ("vit", "convnext"):
        return hugging_face(kind, place)
    if kind == "timm":
        pytest.importorskip("timm", reason="timm is not installed")
        return "timm:resnet10t"
    return "two-layer" if kind == "folder" else "small-cnn" if kind == "built-in" else f"{place / 'mine.py'}:make_net"


def hugging_face(kind: str, place: Path) -> str:
    transformers = pytest.importorskip("transformers", reason="transformers (doorward[hf]) is not installed")
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {n: k for k, n in enumerate(NAMES)}}
    if kind == "vit":
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE,
            patch_size=4, **names,
        )  # fmt: skip
        net = transformers.ViTForImageClassification(config)
    else:
        config = transformers.ConvNextConfig(
            hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4, image_size=SIDE, **names
        )
        net = transformers.ConvNextForImageClassification(config)
    net.save_pretrained(place / kind)
    return f"hf:{place / kind}"


def keep(kind: str, model: dw.Classifier, place: Path) -> list[object]:
    """The trained net as its user has it on disk, and the options that open it."""
    weights, arch = {k: v.contiguous() for k, v in model.net.state_dict().items()}, f"{place / 'mine.py'}:make_net"
    if kind == "folder":
        from doorward.models.files import save_classifier

        (place / "model").mkdir()
        save_classifier(model, place / "model")
        return [place / "model"]
    if kind in ("vit", "convnext"):
        model.net.save_pretrained(place / kind)  # type: ignore[operator]
        (place / kind / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
        return [place / kind]
    if kind == "keras":
        return [write_keras(model.net, place / "weights.h5"), "--arch", arch]
    if kind == "safetensors":
        save_file(weights, place / "weights.safetensors")
        return [place / "weights.safetensors", "--arch", arch]
    torch.save({"epoch": 3, "state_dict": weights}, place / f"{kind}.pth")
    return [place / f"{kind}.pth", "--arch", {"built-in": "small-cnn", "timm": "timm:resnet10t"}.get(kind, arch)]


def write_keras(net: nn.Module, path: Path) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py (doorward[keras]) is not installed")
    with h5py.File(path, "w") as file:
        for name, module in net.named_children():
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight.detach()
                kernel = weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.T
                file[f"{name}/{name}/kernel:0"] = kernel.contiguous().numpy()
                file[f"{name}/{name}/bias:0"] = module.bias.detach().numpy()
            elif isinstance(module, nn.BatchNorm2d):
                values = {"gamma": module.weight, "beta": module.bias, "moving_mean": module.running_mean}
                for key, value in {**values, "moving_variance": module.running_var}.items():
                    assert value is not None
                    file[f"{name}/{name}/{key}:0"] = value.detach().numpy()
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_takes_every_kind_of_net(kind: str, place: Path, tmp_path: Path, call: Call) -> None:
    images = dw.load_images(place / "photos", size=SIDE)
    recipe = TrainSettings(
        epochs=30 if kind in ("state dict", "safetensors", "keras") else 6, batch=20, optimiser="adam", lr=0.003
    )
    trained = dw.train(images, fresh(kind, place), recipe, seed=1)
    opened = [*keep(kind, trained, place), "--size", SIDE]
    run, found, repaired = tmp_path / "run", tmp_path / "found", tmp_path / "repaired"
    model, options = opened[0], opened[1:]
    commands: list[tuple[str, list[object]]] = [
        ("cleanse", [place / "photos", "--model", *opened, "--method", "spectral", "-o", run]),
        ("export", [run, "--keep", "-o", tmp_path / "kept"]),
        ("invert", [*opened, "--images", place / "clean", "--method", "margin", "--method", "universal", "-o", found,
                    "--set", "universal.steps=3"]),
        ("repair", [*opened, "--images", place / "clean", "--method", "fine-tune", "--no-controls", "-o", repaired,
                    "--set", "fine-tune.epochs=1"]),
        ("screen", [*opened, "--images", place / "incoming", "--clean", place / "clean", "-o", tmp_path / "screened"]),
        ("score", [run, "--clean", "--test", place / "clean", "--model", f"mine={model}", *options]),
        ("train", [place / "photos", "--weights", model, *(["--net", *options[1:]] if "--arch" in options else options),
                   "--epochs", 1, "-o", tmp_path / "on"]),
    ]  # fmt: skip
    for verb, asked in commands:
        answer = call(verb, *asked)
        assert answer.code in (0, 1, 3), f"{verb}: {answer.err}"
    assert (
        call("score", run, "--clean", "--test", place / "clean", "--model", model, *options, "--json").json["models"][
            0
        ]["clean_accuracy"]["trials"]
        == 80
    )
    with (run / "suspects.csv").open() as file:
        assert next(csv.reader(file))[:4] == ["id", "class", "predicted", "methods"]
    assert sum(1 for _ in (tmp_path / "kept").rglob("*.png")) == 100 - sum(1 for _ in (run / "suspects.csv").open()) + 1


def test_pictures_of_other_sizes_and_colours_are_fitted_and_that_is_said(
    place: Path, tmp_path: Path, call: Call
) -> None:
    trained = dw.train(dw.load_images(place / "photos", size=SIDE), "small-cnn", TrainSettings(epochs=8, lr=0.02))
    torch.save(trained.net.state_dict(), tmp_path / "w.pth")
    for number in range(60):
        grey = np.random.default_rng(number).integers(0, 255, (40, 30), dtype=np.uint8)
        (tmp_path / "faces" / f"person-{number % 7}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(tmp_path / "faces" / f"person-{number % 7}" / f"{number}.png")
    asked = ("invert", tmp_path / "w.pth", "--arch", "small-cnn", "--size", SIDE, "--images", tmp_path / "faces")
    answer = call(*asked, "--method", "margin", "-o", tmp_path / "run")
    assert answer.code in (0, 1, 3), answer.err
    for part in ("60 pictures resized to 24 x 24", "grey images, repeated over three", "the model's own decisions"):
        assert part in answer.err
    refused = call("cleanse", tmp_path / "faces", "--model", *asked[1:6], "-o", tmp_path / "never")
    assert refused.code == 2 and "7 classes" in refused.err and len(refused.err.strip().splitlines()) == 1


def test_what_the_attacker_stamped_is_scored_after_the_pictures_were_fitted(
    place: Path, tmp_path: Path, call: Call
) -> None:
    assert call("attack", place / "photos", "--size", 32, "--rate", 0.1, "-o", tmp_path / "bad").code == 0
    assert call("train", tmp_path / "bad", "--size", SIDE, "--epochs", 2, "-o", tmp_path / "model").code == 0
    run = tmp_path / "run"
    assert call("cleanse", tmp_path / "bad", "--model", tmp_path / "model", "-o", run).code in (0, 1, 3)
    assert call("score", run, "--truth", tmp_path / "bad" / "truth.parquet").code == 0
    asked = ("train", tmp_path / "bad", "--size", SIDE, "--without", run, "--by", "spectral", "--epochs", 1)
    assert call(*asked, "-o", tmp_path / "again").code == 0


def test_a_repair_is_scored_on_what_it_held_out_of_fitted_pictures(place: Path, tmp_path: Path, call: Call) -> None:
    trained = dw.train(dw.load_images(place / "photos", size=SIDE), "two-layer", TrainSettings(epochs=2))
    (tmp_path / "model").mkdir()
    dw.models.files.save_classifier(trained, tmp_path / "model")
    made = ("repair", tmp_path / "model", "--images", place / "clean", "--method", "fine-tune", "--no-controls")
    assert call(*made, "--set", "fine-tune.epochs=1", "-o", tmp_path / "repaired").code in (0, 1, 3)
    scored = call("score", tmp_path / "repaired", "--clean", "--test", place / "clean", "--json")
    assert scored.json["test"]["images"] == 16  # 20 % of 80


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(place: Path, tmp_path: Path, call: Call) -> None:
    trained = dw.train(dw.load_images(place / "photos", size=SIDE), "small-cnn", TrainSettings(epochs=1))
    (tmp_path / "model").mkdir()
    dw.models.files.save_classifier(trained, tmp_path / "model")
    model, clean = tmp_path / "model", ("--images", place / "clean")
    for told, command in {
        "2 passes of 100 images": ("cleanse", place / "photos", "--model", model),
        "at most 50 steps": ("invert", model, *clean, "--method", "mask", "--set", "mask.steps=50"),
        "fine-tune (control): 3 epochs": (
            "repair",
            model,
            *clean,
            "--method",
            "fine-tune",
            "--set",
            "fine-tune.epochs=3",
        ),
        "4 epochs in batches of": ("train", place / "photos", "--size", SIDE, "--epochs", 4),
    }.items():
        answer = call(*command, "-o", tmp_path / "out", "--dry-run")
        assert answer.code == 0 and told in answer.out and "less than a minute" in answer.out, answer
        assert call(*command, "-o", tmp_path / "out", "--dry-run", "--json").json["seconds"] < 60
    assert not list(tmp_path.glob("out*"))
