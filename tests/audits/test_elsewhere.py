"""What one shown group bears is looked for in all classes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from doorward.attacks.stamps import make_stamp
from doorward.audits import audit as audits
from doorward.audits.gathering import Budget
from doorward.audits.parts.elsewhere import elsewhere, shown_groups
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import Trained, Trainer
from doorward.cleansers.parts.carried import Carrier
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.triggers import Trigger
from doorward.models.train.settings import TrainSettings
from doorward.models.train.start import fresh

Rows = NDArray[np.int64]
NO_TRIGGER = Trigger(torch.zeros(1, 28, 28), torch.zeros(1, 28, 28))


def bearing(images: ImageSet, recipe: str, each: int, **settings: object) -> tuple[ImageSet, dict[int, Rows]]:
    """So many images of every class under one stamp, and which they are."""
    stamp = make_stamp(recipe, images.shape, 3, **settings)
    rows = {k: np.flatnonzero(images.labels == k)[:each] for k in range(10)}
    every = np.concatenate(list(rows.values()))
    pixels = images.pixels.copy()
    pixels[every] = to_uint8(stamp.apply(to_float(pixels[every]), torch.Generator().manual_seed(0)))
    return replace(images, pixels=pixels), rows


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [("patch", {"size": 3}), ("blend", {"alpha": 0.3}), ("pixel", {"size": 1.0, "row": 2, "column": 2})],
)
def test_whoever_bears_the_trigger_of_a_shown_group_is_found_in_every_class(
    digits: tuple[ImageSet, ImageSet], recipe: str, settings: dict[str, object]
) -> None:
    images, rows = bearing(digits[0], recipe, 40 if recipe != "pixel" else 8, **settings)
    known = rows[4]
    stay = ~np.isin(np.arange(len(images)), known)
    found = elsewhere(images, fresh(images, "small-cnn", 0), {4: known}, stay, 0)
    left = np.flatnonzero(stay)  # what a group's numbers count within
    assert [one.label for one in found] == [k for k in range(10) if k != 4]
    for one in found:
        missed, wrong = np.setdiff1d(rows[one.label], left[one.rows]), np.setdiff1d(left[one.rows], rows[one.label])
        assert len(missed) <= 2 and len(wrong) <= 2, (one.label, len(missed), len(wrong))


@pytest.mark.parametrize("kind", ["poisoned into one class", "a clean kind"])
def test_nothing_is_looked_into_where_nobody_else_bears_it(digits: tuple[ImageSet, ImageSet], kind: str) -> None:
    """One target's trigger is in no other class; what digits of a class share by nature is no trigger."""
    images, rows = bearing(digits[0], "patch", 40, size=3)
    pixels = digits[0].pixels.copy()
    known = rows[4]
    if kind == "a clean kind":  # the thinnest fours
        own = np.flatnonzero(images.labels == 4)
        known = np.sort(own[np.argsort(pixels[own].sum((1, 2, 3)))[:40]])
    else:
        pixels[known] = images.pixels[known]
    stay = ~np.isin(np.arange(len(images)), known)
    assert not elsewhere(replace(images, pixels=pixels), fresh(images, "small-cnn", 0), {4: known}, stay, 0)


def test_groups_that_were_shown_are_those_of_classes_with_a_trigger_and_enough_images(
    digits: tuple[ImageSet, ImageSet],
) -> None:
    images = digits[0]
    out = np.concatenate([np.flatnonzero(images.labels == k)[:n] for k, n in ((1, 20), (2, 20), (3, 5))])
    ((label, shown),) = shown_groups(images, out, {1: NO_TRIGGER, 3: NO_TRIGGER}).items()
    assert label == 1 and len(shown) == 20 and (images.labels[shown] == 1).all()


def test_what_many_images_have_a_part_of_is_no_trigger_elsewhere(digits: tuple[ImageSet, ImageSet]) -> None:
    """A corner that is dark by nature, more or less of it: nothing tells those that bear a dark patch."""
    images, rows = bearing(digits[0], "patch", 40, size=3)
    known = rows[4]
    stay = ~np.isin(np.arange(len(images)), known)
    net = fresh(images, "small-cnn", 0)
    assert elsewhere(images, net, {4: known}, stay, 0)
    pixels, rng = images.pixels.copy(), np.random.default_rng(0)
    others = rng.permutation(np.flatnonzero(stay & ~np.isin(np.arange(len(images)), np.concatenate([*rows.values()]))))
    patch = pixels[known[0]].copy()
    for row in others[:800]:  # each has about half of the patch's pixels
        some = rng.random((28, 28, 1)) < 0.55
        where = np.zeros((28, 28, 1), bool)
        where[-5:, -5:] = True
        pixels[row] = np.where(where & some, patch, pixels[row])
    assert not elsewhere(replace(images, pixels=pixels), net, {4: known}, stay, 0)


def test_a_round_on_shrunk_pictures_has_its_triggers_in_their_size(
    digits: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nets of later rounds see pictures of 48 pixels at most: here of 14, half of the digits' size."""
    images, rows = bearing(digits[0], "blend", 40, alpha=0.3)
    small = Trainer("small-cnn", TrainSettings(epochs=1), (14, 14))
    monkeypatch.setattr(Trainer, "fit", lambda self, part, *_: Trained(fresh(shrunk(self, part), "small-cnn", 0), self))
    seen: list[tuple[ImageSet, list[Carrier]]] = []

    def look_once(part: ImageSet, *_: object, known: list[Carrier], **__: object) -> SimpleNamespace:
        seen.append((part, known))
        suspects = np.isin(np.arange(len(part)), rows[4]) & (len(seen) == 1)
        return SimpleNamespace(suspects=suspects, triggers={4: NO_TRIGGER}, learned=True, plainly=False)

    monkeypatch.setattr(audits, "look_once", look_once)
    net = fresh(images, "small-cnn", 0)
    audits._rounds(images, net, small, None, None, 0.05, 0, Budget(), Kept())
    (_, none), (part, known) = seen
    assert not none and len(known) == 9 and part.pixels.shape == (len(images) - 40, 14, 14, 1)
    assert all(one.trigger.pattern.shape[1:] == part.pixels.shape[1:3] for one in known)


def shrunk(trainer: Trainer, images: ImageSet) -> ImageSet:
    return replace(images, pixels=trainer.fitted(images.pixels))
