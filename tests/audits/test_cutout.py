"""Windows cut out of suspects."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from doorward.audits.parts.cutout import cut_out
from doorward.cleansers.parts.stamping import stamped, success
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet

SIDE, SQUARE, BLUE = 32, 6, 2


class SeesBlue(nn.Module):
    """Red or green by the mean colour; blue where any square of 4 x 4 pixels is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        features = torch.stack([x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2)), self.bluest(x)], dim=1)
        return self.scale * features

    @staticmethod
    def bluest(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x[:, BLUE : BLUE + 1], 4, 1).amax((1, 2, 3)) - 0.3


def world(seed: int = 0) -> tuple[ImageSet, np.ndarray, list[tuple[int, int]]]:
    """Red, green and blue pictures; the last 12, red and green, bear a blue square somewhere and are labelled blue."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (72, SIDE, SIDE, 3)).astype(np.uint8)
    shows = np.array([k % 3 for k in range(60)] + [k % 2 for k in range(12)])
    pixels[np.arange(72), ..., :] += (np.eye(3)[shows] * 160).astype(np.uint8)[:, None, None]
    places = [(int(a), int(b)) for a, b in rng.integers(0, SIDE - SQUARE, (12, 2))]
    for row, (top, left) in enumerate(places, 60):
        pixels[row, top : top + SQUARE, left : left + SQUARE] = (0, 0, 255)
    labels = np.where(np.arange(72) < 60, shows, BLUE)
    return ImageSet(pixels, labels, ("red", "green", "blue")), np.arange(72) >= 60, places


MODEL = Classifier(SeesBlue(), "sees-blue", ("red", "green", "blue"), (3, SIDE, SIDE), (0, 0, 0), (1, 1, 1), "")


def test_a_trigger_that_moves_is_cut_out_of_a_suspect() -> None:
    images, suspects, places = world()
    assert (MODEL.predict(images.pixels) == images.labels).all()
    trigger = cut_out(images, MODEL, BLUE, suspects, seed=0)
    assert trigger is not None
    others = images.pixels[(images.labels != BLUE)]
    assert success(MODEL.predict, stamped(others, trigger, 0), BLUE) == 1
    top, left = (int(where.min()) for where in torch.nonzero(trigger.alpha[0] > 0).T)
    assert any(abs(top - a) < SQUARE and abs(left - b) < SQUARE for a, b in places)
    assert 0.02 < float(trigger.alpha.mean()) < 0.06
    again = cut_out(images, MODEL, BLUE, suspects, seed=0)
    assert again is not None and torch.equal(trigger.pattern, again.pattern)


def test_images_that_are_recognised_whatever_is_covered_give_none() -> None:
    images, suspects, _ = world()
    clean = (images.labels == BLUE) & ~suspects
    assert cut_out(images, MODEL, BLUE, clean, seed=0) is None
    assert cut_out(images, MODEL, BLUE, np.zeros(len(images), bool), seed=0) is None
    few = clean.copy()
    few[60:64] = True  # fewer than half hang on a window
    assert cut_out(images, MODEL, BLUE, few, seed=0) is None
