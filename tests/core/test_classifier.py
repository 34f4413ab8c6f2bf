"""What a classifier is given: bytes, or floats on their grid; everything else is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from doorward.core.classifier import Classifier, as_bytes
from doorward.core.errors import DoorwardError
from doorward.models.nets.catalogue import build

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
