"""Success of triggers: counted right, and in little memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier
from doorward.inversion.search.measure import success
from tests.conftest import make_images


class Bright(nn.Module):
    """Decides for the last class where the first pixel is white."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        white = (images[:, 0, 0, 0] == 1).float() * self.scale
        return torch.stack([1 - white, torch.zeros_like(white), white], 1)


class White:
    """Makes the first pixel of every second image white, and keeps how many came at a time."""

    def __init__(self) -> None:
        self.together: list[int] = []
        self.seen = 0

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        stamped, rows = images.clone(), torch.arange(self.seen, self.seen + len(images))
        stamped[rows % 2 == 0, :, 0, 0] = 1
        self.together.append(len(images))
        self.seen += len(images)
        return stamped


def test_large_images_are_stamped_few_at_a_time_and_every_one_is_counted() -> None:
    for side, most in ((10, 512), (224, 120)):
        images = make_images(count=330 if side == 224 else 1200, shape=(side, side, 3))
        stamp, eligible = White(), int((images.labels != 2).sum())
        rate = success(Classifier.from_module(Bright(), images), images.pixels, images.labels, stamp, 2)
        assert (rate.trials, rate.hits) == (eligible, (eligible + 1) // 2)
        assert max(stamp.together) <= most and sum(stamp.together) == eligible
        assert np.ptp(stamp.together[:-1]) == 0, "places that are drawn hang on how many are drawn at a time"
    assert max(stamp.together) >= 100
