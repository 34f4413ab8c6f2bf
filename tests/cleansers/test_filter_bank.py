"""The filter bank sees what a blur leaves alone: faint pictures over the whole image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from doorward.attacks.attack import attack
from doorward.cleansers.cleanse import cleanse
from doorward.cleansers.methods.filter_bank import FilterBankSettings, _names, filter_bank
from doorward.cleansers.observe import observe
from doorward.cleansers.parts.filters import FILTERS
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings

TARGET = 3
World = tuple[ImageSet, Classifier, NDArray[np.bool_]]


@pytest.fixture(scope="module")
def blended(digits: tuple[ImageSet, ImageSet]) -> World:
    """2,000 digits, 60 of them under a faint picture and labelled 3, and a net that has learned it."""
    some = digits[0].subset(np.arange(0, len(digits[0]), 2))
    made = attack(some, "blend", target=TARGET, rate=0.03, seed=4, settings={"alpha": 0.15})
    net = train(made.images, "small-cnn", TrainSettings(epochs=6, batch=64, lr=0.05), seed=4)
    return made.images, net, made.truth.poisoned


def test_a_faint_picture_that_survives_a_blur_is_found(blended: World) -> None:
    images, net, poisoned = blended
    found = cleanse(images, net, ["filter-bank", "impurity"], seed=0)
    flag = found.suspicion("filter-bank").flag
    assert flag[poisoned].mean() > 0.6 and flag[~poisoned].mean() < 0.002
    assert found.suspicion("impurity").flag[poisoned].mean() < 0.1, "one blur does not see it"
    p_values = found.record.methods["filter-bank"].class_p_values
    assert p_values[TARGET] == min(p_values) <= 0.01 and found.targets == ("3",)  # type: ignore[type-var]


def test_filters_that_change_most_decisions_say_nothing(blended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    images, net, _ = blended
    seen = observe(images, net)
    given = (net, images.pixels, seen.features, seen.logits, images.labels)
    monkeypatch.setitem(FILTERS, "noise", lambda pictures, _: torch.zeros_like(pictures))
    black = filter_bank(*given, FilterBankSettings(filters=("noise",)), seed=0)
    assert not black.flag.any() and not black.score.any()
    assert black.warnings == ("noise changes more than 20 % of all decisions; it is left out",)


def test_wider_means_are_tried_on_larger_pictures_alone() -> None:
    s = FilterBankSettings()
    assert _names(s, 28) == s.filters and set(_names(s, 48)) - set(s.filters) == {"mean-24th", "mean-16th", "mean-12th"}
    with pytest.raises(DoorwardError, match="filter 'blur'; expected some of mean2"):
        _names(FilterBankSettings(filters=("blur",)), 28)
