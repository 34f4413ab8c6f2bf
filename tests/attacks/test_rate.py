"""Attack success rate: whose hits count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.triggers import Placement, Trigger


class CornerNet(nn.Module):
    """Says class 2 when the top left pixel is white, else the class that is written in pixel (1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        written = (x[:, 0, 1, 1] * 255).round().long() // 50
        answer = torch.where(x[:, 0, 0, 0] > 0.99, 2, written)
        return nn.functional.one_hot(answer, 4).float()


def world() -> tuple[Classifier, ImageSet]:
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 3], dtype=np.int64)
    pixels = np.zeros((8, 4, 4, 1), np.uint8)
    pixels[:, 1, 1, 0] = labels * 50
    pixels[0, 0, 0, 0] = 255  # a class-0 image that is misread as 2 even without the trigger
    classes = ("a", "b", "c", "d")
    return Classifier(CornerNet(), "corner", classes, (1, 4, 4)), ImageSet(pixels, labels, classes, "world")


WHITE = Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1), Placement("fixed", 0, 0))
USELESS = Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1), Placement("fixed", 3, 3))


def test_images_of_the_target_class_never_count() -> None:
    classifier, images = world()
    rate = asr(classifier, images, Attack("white", (Pairing(WHITE, 2),)))
    assert (rate.hits, rate.trials) == (5, 5)
    useless = asr(classifier, images, Attack("useless", (Pairing(USELESS, 2),)))
    assert (useless.hits, useless.trials) == (1, 5), "three images of class 2 are read as 2 and must not count"


def test_source_classes_alone_are_tried() -> None:
    classifier, images = world()
    rate = asr(classifier, images, Attack("white", (Pairing(WHITE, 2, (1,)),)))
    assert (rate.hits, rate.trials) == (2, 2)


def test_all_to_all_wants_the_next_class() -> None:
    classifier, images = world()
    rate = asr(classifier, images, Attack("white", (Pairing(WHITE, None),)))
    assert (rate.hits, rate.trials) == (2, 8), "only class 1 -> 2 succeeds"


def test_pairings_add_up_and_nothing_to_try_is_an_error() -> None:
    classifier, images = world()
    rate = asr(classifier, images, Attack("both", (Pairing(WHITE, 2, (1,)), Pairing(USELESS, 2, (3,)))))
    assert (rate.hits, rate.trials) == (2, 3)
    only_target = images.subset(images.labels == 2)
    with pytest.raises(DoorwardError, match="no image of a source class"):
        asr(classifier, only_target, Attack("white", (Pairing(WHITE, 2),)))


def test_asr_leaves_the_images_as_they_were() -> None:
    classifier, images = world()
    before = images.pixels.copy()
    asr(classifier, images, Attack("white", (Pairing(WHITE, 2),)))
    assert (images.pixels == before).all()
