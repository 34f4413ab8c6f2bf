"""Training of nets of the user's own: given weights, a recipe that learns, how long it takes, two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import doorward as dw
from doorward.core.classifier import measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.text import duration
from doorward.models.files import load_classifier, save_classifier
from doorward.models.nets.catalogue import NETS
from doorward.models.train import job
from doorward.models.train.batches import BatchSource, crop_and_flip
from doorward.models.train.doubts import doubt_learning, estimate_seconds
from doorward.models.train.job import TrainRequest, train_to_folder
from doorward.models.train.settings import TrainSettings, default_recipe
from doorward.models.train.start import from_weights, replace_head
from tests.conftest import make_images

CPU = torch.device("cpu")


@pytest.mark.parametrize("net", ["small-cnn", "two-layer"])
def test_the_default_recipe_learns(net: str) -> None:
    images = make_images(240, shape=(48, 48, 3))
    learned = dw.train(images, net, TrainSettings(epochs=8, batch=32, **default_recipe(net)))
    assert measure_accuracy(learned, images).value > 0.9 and doubt_learning(learned, images) is None
    assert default_recipe("resnet20") == {} and set(NETS) > {"resnet20", "resnet18"}


def test_a_net_at_chance_is_told_of(images: ImageSet, tmp_path: Path) -> None:
    images.save(tmp_path)
    told: list[str] = []
    request = TrainRequest(source=str(tmp_path), net="two-layer", training={"epochs": 1, "lr": 1e-9})
    results = train_to_folder(request, tmp_path / "run", tell=told.append)
    assert (
        results is not None
        and list(results.warnings) == told
        and "the net learned nothing; expected a smaller lr" in told[0]
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["results"]["warnings"] == told


def test_a_long_training_is_announced(images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dw.train(images, "small-cnn", TrainSettings(epochs=1, batch=16))
    weights = {k: v.clone() for k, v in before.net.state_dict().items()}
    settings = TrainSettings(epochs=200, batch=16)
    seconds = estimate_seconds(images, "small-cnn", settings, device="cpu", start=before)
    assert 0.1 < seconds < 600 and all(torch.equal(v, weights[k]) for k, v in before.net.state_dict().items())
    assert (duration(2100), duration(9000), duration(864_000)) == (
        "about 35 minutes",
        "about 2.5 hours",
        "about 10.0 days",
    )
    images.save(tmp_path)
    told: list[str] = []
    monkeypatch.setattr(job, "estimate_seconds", lambda *_, **__: 2100.0)
    request = TrainRequest(source=str(tmp_path), training={"epochs": 5, "batch": 16, "optimiser": "adam", "lr": 0.003})
    train_to_folder(request, tmp_path / "run", tell=told.append)
    assert told[0].startswith("about 35 minutes on this machine; Ctrl-C stops it, the same command goes on")


def test_imagenet_augmentation_cuts_and_mirrors_within_the_image() -> None:
    ramp = torch.linspace(0, 1, 20).expand(400, 1, 16, 20).contiguous()
    made = crop_and_flip(ramp, torch.Generator().manual_seed(0))
    rising = made[:, 0, 0, -1] > made[:, 0, 0, 0]
    span = made.amax((1, 2, 3)) - made.amin((1, 2, 3))
    assert made.shape == ramp.shape and made.min() >= 0 and made.max() <= 1
    assert 0.4 < rising.float().mean() < 0.6 and 0.15 < span.min() < 0.4 and span.max() > 0.9
    assert torch.allclose(made, made[:, :, :1].expand_as(made), atol=1e-5), "rows of a ramp stay equal"
    images = make_images()
    cut, plain = (next(iter(BatchSource(images, 60, 0, CPU, False, 0, crop).epoch(0)))[0] for crop in (True, False))
    assert not torch.equal(cut, plain)
    net = dw.train(images, "small-cnn", TrainSettings(epochs=1, batch=16), augment="imagenet")
    assert net.predict(images.pixels).shape == (60,)


def test_shares_of_a_batch_are_the_batch() -> None:
    images = make_images(101)
    whole = [b for _, b, _ in BatchSource(images, 20, 3, CPU, False, 0).epoch(1)]
    parts = [[b for _, b, _ in BatchSource(images, 20, 3, CPU, False, 0, share=(n, 2)).epoch(1)] for n in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 5 and all(len(a) == len(b) for a, b in zip(*parts, strict=True))
    for batch, one, other in zip(whole, *parts, strict=True):
        assert sorted([*one.tolist(), *other.tolist()]) == sorted(batch.tolist())


def test_given_weights_keep_or_change_their_head(images: ImageSet, tmp_path: Path) -> None:
    first = dw.train(images, "small-cnn", TrainSettings(epochs=3, batch=16, lr=0.05))
    (tmp_path / "model").mkdir()
    save_classifier(first, tmp_path / "model")
    same, notes = from_weights(tmp_path / "model", None, images)
    assert not notes and (same.predict(images.pixels) == first.predict(images.pixels)).all()
    more = make_images(classes=5)
    other, notes = from_weights(tmp_path / "model", None, more)
    assert "weights for 3 classes; the head is replaced by one for the 5 of made-up" in notes[0]
    assert other.check() == 64 and torch.equal(other.net.hidden.weight, first.net.hidden.weight)  # type: ignore[union-attr]
    state, notes = from_weights(tmp_path / "model" / "weights.safetensors", "small-cnn", images, mean=(0.5,))
    assert state.mean == (0.5,) and not notes
    with pytest.raises(DoorwardError, match="no layer of 4 outputs"):
        replace_head(dw.Classifier(torch.nn.Conv2d(3, 4, 3), "odd", tuple("abcd"), (3, 8, 8)), 3, 0)
    images.save(tmp_path)
    request = TrainRequest(source=str(tmp_path), weights=str(tmp_path / "model"), size=12, training={"epochs": 1})
    train_to_folder(TrainRequest(source=str(tmp_path), mean=(0.1,), training={"epochs": 1}), tmp_path / "own")
    assert load_classifier(tmp_path / "own").mean == (0.1,) and load_classifier(tmp_path / "own").std == (1.0,)
    made = train_to_folder(request, tmp_path / "run")
    assert made is not None and made.notes
    assert load_classifier(tmp_path / "run").shape == images.shape


@pytest.mark.slow
def test_two_processes_train_one_net(images: ImageSet, tmp_path: Path) -> None:
    """Called from Python, then by the command, of which only the first process speaks."""
    images.save(tmp_path)
    (tmp_path / "both.py").write_text(
        "import sys, os, json\n"
        "from doorward.__main__ import main\n"
        "from doorward.core.images import ImageSet\n"
        "from doorward.models.train.loop import train\n"
        "from doorward.models.train.settings import TrainSettings\n"
        "told = []\n"
        "settings = TrainSettings(epochs=3, batch=20, lr=0.05)\n"
        "net = train(ImageSet.load(sys.argv[1]), 'small-cnn', settings, device='cpu',\n"
        "            watch=lambda e: told.append(e.loss))\n"
        "total = sum(float(p.double().sum()) for p in net.net.parameters())\n"
        "open(f\"{sys.argv[1]}/{os.environ['RANK']}.json\", 'w').write(json.dumps([told, total]))\n"
        "sys.argv = ['doorward', 'train', sys.argv[1], '--epochs', '3', '--json', '-o', f'{sys.argv[1]}/run']\n"
        "main()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command, here = [*launch, tmp_path / "both.py", tmp_path], {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, check=True, env=here, capture_output=True, text=True, timeout=120)
    one, other = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (0, 1))
    assert one == other and one[0][-1] < one[0][0]
    assert json.loads(ran.stdout)["images"] == 60 and (tmp_path / "run" / "weights.safetensors").exists()
