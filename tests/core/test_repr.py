"""What is shown at a prompt is a line or two, never whole arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import doorward as dw
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Placement, Trigger
from doorward.models.nets.catalogue import build


def noise(count: int = 200, classes: int = 12) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % classes, tuple(f"k{n}" for n in range(classes)), "noise")


def net(images: ImageSet) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build("two-layer", images.shape, len(images.classes)), "two-layer", images.classes, images.shape)


def test_an_image_set_is_not_read_to_be_shown() -> None:
    images = noise()
    assert repr(images) == "ImageSet noise: 200 images of 1x8x8, 12 classes: k0, k1, k2, k3, k4, k5, ..."
    assert "hash" not in vars(images)
    steered = dataclasses.replace(images, name="a\x1b[31m\nb")
    assert repr(steered).isprintable()


def test_a_classifier_and_its_conventions() -> None:
    told = repr(net(noise()))
    assert told.startswith(
        "Classifier two-layer: images of 1x8x8, 12 classes: k0, k1, k2, k3, k4, k5, ...; mean 0, std 1;"
    )
    assert told.endswith(" weights on cpu") and len(told) < 200


@pytest.mark.parametrize(
    ("placement", "where"),
    [
        (Placement("fixed", 3, 4), "at row 3, column 4"),
        (Placement("random"), "anywhere"),
        (Placement("window", 1, 2, 7, 8), "within rows 1 to 6, columns 2 to 7"),
    ],
)
def test_a_trigger_and_its_place(placement: Placement, where: str) -> None:
    trigger = Trigger(torch.rand(3, 2, 5), torch.full((1, 2, 5), 0.25), placement)
    assert repr(trigger) == f"Trigger 3x2x5, blend alpha, alpha up to 0.25, {where}"
    assert "alpha" not in repr(dataclasses.replace(trigger, blend="add"))


def test_results_fit_on_a_line_or_two() -> None:
    images = noise()
    classifier = net(images)
    poisoned = dw.attack(images, "patch", rate=0.1)
    cleansing = dw.cleanse(images, classifier, ["spectral"])
    inversion = dw.invert(classifier, None, ["margin"])
    repaired = dw.repair(classifier, images, methods=["refresh"], controls=False)
    arms = repaired.arms
    two = images.subset(images.labels < 2)
    proof = dw.certify(two, two, "nearest-centroid", trials=64)
    told = {
        repr(poisoned): "Poisoned noise: 20 of 200 images; patch: any class -> k0",
        repr(arms[0]): "Arm as given (given): accuracy ",
        repr(arms[1].repaired): "Repaired two-layer: ",
        repr(proof): "Certificate by flip-smoothing: 34 test images, 12 classes, 64 trials, alpha 0.001; certified acc",
    }
    for shown, start in told.items():
        assert shown.startswith(start) and len(shown) < 300 and shown.isprintable(), shown
    for result in (cleansing, inversion, repaired):
        first, *reasons = repr(result).splitlines()
        assert first.startswith(f"<{type(result).__name__}: {result.record.judgement.headline}") and len(reasons) <= 4
