"""The loop learns, repeats to the bit, resumes to the bit, and refuses weights that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.models.files import load_classifier, save_classifier
from doorward.models.nets.catalogue import NETS, build
from doorward.models.train.batches import BatchSource, augment
from doorward.models.train.loop import channel_statistics, make_optimiser, train
from doorward.models.train.settings import TrainSettings
from tests.conftest import make_images

QUICK = TrainSettings(epochs=4, batch=16, lr=0.05)


def weights(classifier: Classifier) -> torch.Tensor:
    return torch.cat([v.float().flatten() for v in classifier.net.state_dict().values()])


def test_it_learns(images: ImageSet) -> None:
    classifier = train(images, "small-cnn", TrainSettings(epochs=15, batch=16, lr=0.05))
    assert measure_accuracy(classifier, make_images(seed=1)).value > 0.9


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not(images: ImageSet) -> None:
    first, again, other = (weights(train(images, "two-layer", QUICK, seed=s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adam-l2"])
def test_an_interrupted_training_goes_on_to_the_same_weights(images: ImageSet, tmp_path: Path, optimiser: str) -> None:
    settings = TrainSettings(epochs=4, batch=16, lr=0.01, optimiser=optimiser, flip=True, shift=1)
    whole = train(images, "small-cnn", settings, seed=3)

    class Stop(Exception):
        pass

    def stop_after_two(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 2:
            raise Stop

    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stop):
        train(images, "small-cnn", settings, seed=3, checkpoint=file, progress=stop_after_two)
    resumed = train(images, "small-cnn", settings, seed=3, checkpoint=file)
    assert torch.equal(weights(whole), weights(resumed))


def test_a_training_killed_after_its_last_epoch_still_tells_that_epoch(images: ImageSet, tmp_path: Path) -> None:
    file, first, again = tmp_path / "checkpoint.safetensors", [], []
    train(images, "two-layer", QUICK, checkpoint=file, watch=first.append)
    train(images, "two-layer", QUICK, checkpoint=file, watch=again.append)
    assert again == first[-1:]


def test_a_checkpoint_of_another_net_is_refused(images: ImageSet, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    train(images, "two-layer", QUICK, checkpoint=file)
    with pytest.raises(DoorwardError, match="does not fit this training"):
        train(images, "small-cnn", QUICK, checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DoorwardError, match="whole safetensors file"):
        train(images, "two-layer", QUICK, checkpoint=file)


def test_one_cycle_rises_then_falls_to_almost_nothing() -> None:
    settings = TrainSettings(epochs=10, lr=0.4, warmup=0.25)
    rates = [settings.rate(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.4) and int(np.argmax(rates)) == 24
    assert rates[0] == pytest.approx(0.4 / 25) and rates[-1] == pytest.approx(0.4 / 76)


def test_step_schedule_of_the_keras_recipe() -> None:
    recipe = TrainSettings(
        epochs=200, lr=1e-3, schedule="step", step_epochs=(80, 120, 160, 180), step_factors=(0.1, 0.01, 1e-3, 5e-4)
    )
    at = {epoch: recipe.rate(epoch * 50, 200 * 50) for epoch in (0, 79, 80, 120, 160, 180, 199)}
    expected = {0: 1e-3, 79: 1e-3, 80: 1e-4, 120: 1e-5, 160: 1e-6, 180: 5e-7, 199: 5e-7}
    assert at == pytest.approx(expected)


def test_augmentation_moves_each_image_as_a_whole() -> None:
    pixels = torch.arange(6 * 7, dtype=torch.uint8).view(1, 6, 7, 1).expand(500, 6, 7, 1)
    moved = augment(pixels, flip=True, shift=2, generator=torch.Generator().manual_seed(0))
    expected = set()
    for mirrored in (pixels[0, :, :, 0], pixels[0].flip(1)[:, :, 0]):
        for down in range(-2, 3):
            for right in range(-2, 3):
                rows = (torch.arange(6) + down).clamp(0, 5)
                columns = (torch.arange(7) + right).clamp(0, 6)
                expected.add(tuple(mirrored[rows][:, columns].flatten().tolist()))
    # the flip happens before the shift of columns or after it: the set of outcomes is the same
    assert {tuple(m.flatten().tolist()) for m in moved} == expected
    assert torch.equal(augment(pixels, False, 0, torch.Generator()), pixels)


def test_an_epoch_visits_every_image_once(images: ImageSet) -> None:
    source = BatchSource(images, 16, seed=0, device=torch.device("cpu"), flip=False, shift=0)
    seen = torch.cat([batch for batch, _, _ in source.epoch(0)])
    assert len(seen) == 60
    assert sorted(map(bytes, to_uint8(seen))) == sorted(map(bytes, images.pixels))
    assert source.steps == 4 and BatchSource(make_images(33), 16, 0, torch.device("cpu"), False, 0).steps == 2


def test_statistics_equal_numpy(images: ImageSet) -> None:
    mean, std = channel_statistics(images)
    scaled = images.pixels / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 1, 2))) and std == pytest.approx(scaled.std(axis=(0, 1, 2)))


def test_8_bit_round_trip() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert (to_uint8(to_float(every)) == every).all()


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_maps_images_to_logits_through_its_features(name: str) -> None:
    shape = (3, 33, 31)
    net = build(name, shape, 7).eval()
    classifier = Classifier(net, name, tuple("abcdefg"), shape)
    with classifier.watching_features() as seen:
        logits = classifier.logits(torch.rand(2, *shape))
    last = [m for m in net.modules() if isinstance(m, torch.nn.Linear)][-1]
    assert logits.shape == (2, 7) and torch.allclose(last(seen[0]), logits, atol=1e-6)


def test_resnet20_has_the_size_of_the_paper() -> None:
    # He et al. 2016, table 6: 0.27 M parameters
    net = build("resnet20", (3, 32, 32), 10)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(0.27e6, rel=0.02)


def test_files_round_trip_and_refuse_what_does_not_fit(images: ImageSet, tmp_path: Path) -> None:
    classifier = train(images, "small-cnn", QUICK)
    save_classifier(classifier, tmp_path)
    again = load_classifier(tmp_path)
    assert (again.predict(images.pixels) == classifier.predict(images.pixels)).all()
    weights_file, about = tmp_path / "weights.safetensors", tmp_path / "classifier.json"
    whole = weights_file.read_bytes()
    weights_file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DoorwardError, match="expected a whole safetensors file"):
        load_classifier(tmp_path)
    weights_file.write_bytes(whole)
    text = about.read_text()
    about.write_text(text.replace("small-cnn", "two-layer"))
    with pytest.raises(DoorwardError, match=r"weights\.safetensors: .*tensor"):
        load_classifier(tmp_path)
    about.write_text(json.dumps({**json.loads(text), "shape": [1, 4_000_000_000, 28]}))  # no memory would hold this net
    with pytest.raises(DoorwardError, match=r"weights\.safetensors: tensor .* has shape .*; expected \["):
        load_classifier(tmp_path)
    for wrong in ({"std": [0.0]}, {"std": [float("nan")]}, {"mean": [float("inf")]}):
        about.write_text(json.dumps({**json.loads(text), **wrong}))
        told = r"classifier\.json: (.*expected finite numbers, std above 0|the number (NaN|Infinity); expected JSON)"
        with pytest.raises(DoorwardError, match=told):
            load_classifier(tmp_path)
    about.write_text(text.replace("small-cnn", "large-cnn"))
    with pytest.raises(DoorwardError, match="'large-cnn'; expected one of"):
        load_classifier(tmp_path)


def test_weights_that_are_not_finite_are_refused(images: ImageSet, tmp_path: Path) -> None:
    classifier = train(images, "two-layer", QUICK)
    with torch.no_grad():
        next(classifier.net.parameters())[0, 0] = float("nan")
    save_classifier(classifier, tmp_path)
    with pytest.raises(DoorwardError, match="NaN or infinity"):
        load_classifier(tmp_path)


def test_coupled_decay_is_a_penalty_in_the_loss_and_decoupled_decay_is_not() -> None:
    # Adam divides the first gradient by itself: coupled, a weight moves by lr whatever its size; decoupled, also by
    # lr * decay * weight
    moved = {}
    for optimiser in ("adam", "adam-l2"):
        net = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(net.weight, 5.0)
        steps = make_optimiser(net, TrainSettings(optimiser=optimiser, lr=0.01, weight_decay=0.2))
        (net.weight * 3).sum().backward()
        steps.step()
        moved[optimiser] = 5.0 - net.weight.item()
    assert moved == pytest.approx({"adam-l2": 0.01, "adam": 0.01 + 0.01 * 0.2 * 5}, rel=1e-3)


def test_training_goes_on_from_given_weights_in_place(images: ImageSet) -> None:
    start = train(images, "two-layer", QUICK, seed=1)
    before = weights(start)
    further = train(make_images(seed=5), "two-layer", QUICK, seed=2, start=start)
    assert further is start and not torch.equal(weights(start), before)
    assert start.mean == channel_statistics(images)[0], "its own conventions stay"
    again = train(make_images(seed=5), "two-layer", QUICK, seed=2, start=train(images, "two-layer", QUICK, seed=1))
    assert torch.equal(weights(again), weights(further))


def test_the_last_plain_epochs_are_not_augmented(images: ImageSet) -> None:
    source = BatchSource(images, 60, 0, torch.device("cpu"), True, 3)
    augmented, plain = (next(iter(source.epoch(4, plain=p)))[0] for p in (False, True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(4))
    assert torch.equal(plain, to_float(images.pixels[order.numpy()])) and not torch.equal(plain, augmented)
    settings = {"epochs": 3, "batch": 16, "flip": True, "shift": 2}
    nets = [
        next(train(images, "two-layer", TrainSettings(**settings, plain_epochs=n)).net.parameters()) for n in (0, 1, 3)
    ]
    never = next(train(images, "two-layer", TrainSettings(epochs=3, batch=16)).net.parameters())
    assert torch.equal(nets[2], never) and not torch.equal(nets[0], nets[1])
