"""Groups that carry a trigger: it is taken from them as it is, and clean groups carry none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from doorward.audits.closer import shown_in_groups
from doorward.audits.experiment import Experiment
from doorward.audits.parts.groups import best_of, carriers, carrying
from doorward.cleansers.parts.carried import Carrier, bearing
from doorward.core.images import ImageSet
from tests.audits.conftest import rows_decide

Set = tuple[ImageSet, np.ndarray, np.ndarray]


class Backdoored:
    """Decides by rows, or by the corner."""

    predict = staticmethod(rows_decide)


def of(images: ImageSet, *marks: np.ndarray) -> list[Carrier]:
    model: Any = Backdoored()
    return carriers(images, model, np.zeros((len(images), 1), np.float32), marks, {}, seed=0)


def test_a_patch_comes_out_pixel_by_pixel_of_a_group_that_is_a_fifth_clean(stripes: Set) -> None:
    images, _, poisoned = stripes
    mixed = poisoned.copy()
    mixed[90:97] = True  # clean ones of the class
    (found,) = of(images, mixed)
    corner = np.zeros((12, 12))
    corner[9:, 9:] = 1
    np.testing.assert_array_equal(found.trigger.alpha[0].numpy(), corner)
    assert found.trigger.pattern[0, 9:, 9:].min() > 0.99 and found.success > 0.99
    np.testing.assert_array_equal(bearing(images, 0, found.trigger), poisoned)


def test_clean_groups_carry_nothing(stripes: Set) -> None:
    images, _, poisoned = stripes
    half = (np.arange(len(images)) % 2 == 0) & ~poisoned
    best = best_of(of(images, half))
    assert set(best) == {0, 1, 2, 3, 4} and max(one.success for one in best.values()) < 0.05


def test_what_is_no_group_is_left_out_and_each_is_tried_once(stripes: Set) -> None:
    images, _, poisoned = stripes
    place = np.arange(len(images))
    whole, tiny, again = images.labels == 1, place < 2, poisoned & (place != 3)
    assert [len(one.rows) for one in of(images, whole, tiny, poisoned, again)] == [30]


def test_images_in_half_of_the_good_groups_are_carriers(stripes: Set) -> None:
    images, _, poisoned = stripes
    place = np.arange(len(images))
    some, clean = poisoned & (place < 20), (place >= 40) & (place < 60)
    found = of(images, poisoned, some, clean)
    assert [one.success > 0.5 for one in found] == [True, True, False]
    np.testing.assert_array_equal(carrying(found, 0, len(images)), poisoned)
    assert not carrying(found, 1, len(images)).any()


@pytest.mark.parametrize("patched", [True, False])
def test_whoever_bears_the_patch_is_flagged_else_their_like_without_sure_ones(stripes: Set, patched: bool) -> None:
    images, _, poisoned = stripes
    place = np.arange(len(images))
    suspects = (poisoned & (place != 7)) | ((place >= 90) & (place < 97))
    features = np.random.default_rng(1).normal(0, 0.3, (len(images), 5)).astype(np.float32)
    features[poisoned, 0] += 6
    score = np.where(suspects, 0.6, 0).astype(np.float32)
    score[4] = 0.1  # nets without the group say it is what its label says
    (found,) = of(images, poisoned)
    patches = {0: found.trigger} if patched else {}
    flagged = shown_in_groups(images, features, Experiment(score=score), suspects, patches, place == 93)
    expected = poisoned if patched else poisoned & (place != 4) & (place != 7)
    expected = expected | (place == 93)  # it looks to the model as a stamped picture
    np.testing.assert_array_equal(flagged, expected)
