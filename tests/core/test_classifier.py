"""What a classifier is given: bytes, or floats on their grid; everything else is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from doorward.core.classifier import Classifier, forward_batch
from doorward.core.errors import DoorwardError
from doorward.core.pixels import as_bytes
from doorward.models.nets.catalogue import build
from tests.conftest import make_images

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 4, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net() -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        build("two-layer", (3, 4, 6), 9), "two-layer", tuple("abcdefghi"), (3, 4, 6), (0.5,) * 3, (0.1,) * 3
    )


def test_floats_are_decided_as_the_bytes_they_stand_for(net: Classifier) -> None:
    expected = net.predict(PIXELS)
    assert len(np.unique(expected)) > 2
    for floats in (PIXELS / 255, (PIXELS / 255).astype(np.float32), torch.from_numpy(PIXELS / 255)):
        assert (net.predict(floats) == expected).all()
    nearly = np.clip(PIXELS / 255 + np.random.default_rng(1).uniform(-0.4, 0.4, PIXELS.shape) / 255, 0, 1)
    assert (as_bytes(nearly, net.shape, "x") == PIXELS).all(), "rounded, not cut off"
    assert (net.predict(torch.from_numpy(PIXELS)) == expected).all()
    assert as_bytes(PIXELS, net.shape, "x") is PIXELS, "no copy"


def test_no_images_have_no_classes(net: Classifier) -> None:
    assert net.predict(PIXELS[:0]).tolist() == [] and net.predict(PIXELS[:0] / 255).tolist() == []


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (PIXELS / 1.0, r"two-layer: floats from 0 to 255; expected 0 to 1, or uint8"),
        (PIXELS / 255 - 0.5, "floats from -0.5 to 0.5"),
        (np.where(PIXELS == 7, np.nan, PIXELS / 255), "floats from nan to nan"),
        (PIXELS.astype(np.int64), "images of type int64; expected uint8, or floats from 0 to 1"),
        (PIXELS > 5, "images of type bool"),
        (PIXELS[0], r"images of shape \[4, 6, 3\]; the classifier takes 4x6x3, expected \[images, height"),
        (PIXELS.transpose(0, 3, 1, 2), r"images of shape \[64, 3, 4, 6\]"),
        (PIXELS[..., :1], r"images of shape \[64, 4, 6, 1\]"),
    ],
)
def test_what_is_refused(net: Classifier, pixels: np.ndarray, told: str) -> None:
    with pytest.raises(DoorwardError, match=told) as error:
        net.predict(pixels)
    assert str(error.value).isprintable()


class Mine(nn.Module):
    """Flat pixels to as many outputs as it is told."""

    def __init__(self, outputs: int, inside: int = 360) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(inside, 7), nn.Dropout(0.5))
        self.head = nn.Linear(7, outputs)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x))


def test_a_module_of_ones_own_becomes_a_classifier() -> None:
    images = make_images(20, shape=(12, 10, 3))
    net = Mine(len(images.classes)).train()
    made = Classifier.from_module(net, like=images, mean=(0.5, 0.4, 0.3), std=0.2)
    assert (made.arch, made.classes, made.shape) == ("Mine", images.classes, images.shape)
    assert (made.mean, made.std, made.feature_name()) == ((0.5, 0.4, 0.3), (0.2,), "head")
    assert made.net is net and not net.training and made.predict(images.pixels).shape == (20,)
    assert Classifier.from_module(net, images, feature_layer="body.1").feature_name() == "body.1"


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ("net", {}, "net of type str; expected a torch.nn.Module"),
        (nn.Flatten(), {}, "Flatten: has no weights"),
        (Mine(3), {"mean": (0.1, 0.2)}, r"Mine: mean \(0.1, 0.2\); expected 1 finite number, or 3, one per channel"),
        (Mine(3), {"std": float("nan")}, r"Mine: std \(nan,\); expected 1 finite number"),
        (Mine(3), {"std": (0.1, 0.0, 0.1)}, "Mine: std 0.1, 0, 0.1; expected numbers above 0"),
        (Mine(3), {"mean": "red"}, "Mine: mean 'red'; expected a number"),
        (Mine(3), {"feature_layer": "neck"}, "Mine: no layer 'neck'; expected one of body"),
        (Mine(4), {}, r"Mine: gives \[8, 4\]; expected logits \[8, 3\], one per class"),
        (Mine(3, inside=9), {}, r"Mine: fails on images of 3x12x10 \(.*\); expected logits \[8, 3\]"),
        (nn.LSTM(10, 3), {}, "LSTM: .*; expected logits"),
    ],
)
def test_a_module_that_does_not_fit_is_one_line(net: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DoorwardError, match=message) as caught:
        Classifier.from_module(net, like=make_images(20, shape=(12, 10, 3)), **options)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_have_the_same_number_of_pixels_whatever_their_size(device: str) -> None:
    small, *larger = (forward_batch(torch.device(device), (3, side, side)) for side in (32, 64, 96, 128, 160, 1000))
    assert forward_batch(torch.device(device), (1, 28, 28)) == small == (128 if device == "cpu" else 2048)
    assert larger == sorted(larger, reverse=True) and larger[-1] >= 4, "a pass over the weights is not for one image"
    most = small * 32 * 32 * (1 if device == "cpu" else 4)
    for side, batch in zip((64, 96, 128, 160), larger, strict=False):
        assert most - side * side < batch * side * side <= most or batch == small
