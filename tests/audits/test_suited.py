"""Which nets an audit trains: those that learn the set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from doorward.audits.doubts import beside_nothing
from doorward.audits.parts.anew import Anew
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.suited import CONV4, WELL, stronger, suited
from doorward.audits.parts.trainer import CHEAPEST, make_trainer
from doorward.core.images import ImageSet
from doorward.core.order_test import OrderTest
from tests.audits.records import made_images

SHAPES = (((0, 8), (3, 5)), ((3, 5), (0, 8)), ((1, 7), (1, 7)))  # a bar that lies, one that stands, a square


@pytest.fixture(scope="module")
def anywhere() -> ImageSet:
    """Bright shapes anywhere on a noisy ground: what a net sees at one place tells it nothing of another."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    pixels = rng.integers(0, 120, (240, 32, 32, 1), dtype=np.uint8)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        row, column = rng.integers(0, 24, 2)
        (left, right), (top, bottom) = SHAPES[label]
        image[row + top : row + bottom, column + left : column + right] = 200
    return ImageSet(pixels, labels.astype(np.int64), ("lies", "stands", "square"), "anywhere")


def test_where_the_cheapest_nets_do_not_learn_a_set_better_ones_are_taken(anywhere: ImageSet, tmp_path: Path) -> None:
    trainer = make_trainer(anywhere, None, "cpu")
    found = suited(anywhere, trainer, 0, Kept(tmp_path))
    assert (trainer.net, found.trainer.net) == (CHEAPEST, CONV4)
    assert found.unseen >= WELL
    tried = {path.stem for path in tmp_path.iterdir()}
    assert tried == {"half-with-pooled-cnn", "half-with-conv4"}
    told = beside_nothing(found, OrderTest(0.2, np.array([0.9, 0.2, 1.0])), anywhere.classes)
    assert "conv4" in told[0] and "hardly" not in told[0] and "“stands”, p = 0.2" in told[1]


def test_where_the_cheapest_nets_learn_a_set_no_other_is_tried(tmp_path: Path) -> None:
    images = made_images(poisoned=0)
    found = suited(images, make_trainer(images, None, "cpu"), 0, Kept(tmp_path))
    assert found.trainer.net == CHEAPEST and found.unseen >= WELL
    assert [path.stem for path in tmp_path.iterdir()] == ["half-with-pooled-cnn"]


def test_a_choice_of_the_users_stands_and_what_nobody_learns_is_said(anywhere: ImageSet) -> None:
    found = suited(anywhere, make_trainer(anywhere, "two-layer", "cpu"), 0, Kept())
    assert found.trainer.net == "two-layer" and found.unseen < 0.65
    assert (
        "two-layer" in beside_nothing(found, None, ())[0]
        and "hardly know the set" in beside_nothing(found, None, ())[0]
    )


@pytest.mark.parametrize(("net", "made", "rate"), [(None, CONV4, 0.1), ("small-cnn", "small-cnn", 0.05)])
def test_what_is_trained_anew_has_the_recipe_of_its_own_kind(
    anywhere: ImageSet, monkeypatch: pytest.MonkeyPatch, net: str | None, made: str, rate: float
) -> None:
    seen = []
    monkeypatch.setattr(
        "doorward.audits.parts.anew.train", lambda _, name, settings, **__: seen.append((name, settings.lr))
    )
    Anew(stronger(make_trainer(anywhere, None, "cpu"), anywhere), net).train(anywhere, 0)
    assert seen == [(made, rate)]


def test_the_unseen_half_is_unseen() -> None:
    images = made_images(poisoned=0)
    labels = np.random.default_rng(0).integers(0, 10, len(images))
    found = suited(images.fitted(labels=labels), make_trainer(images, None, "cpu"), 0, Kept())
    assert found.unseen < 0.3, "random labels can be known by heart alone"
