"""Impurity on larger pictures: a cluster against the rest of its class, in whitened features."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.cleansers.methods.impurity import ImpuritySettings, impurity
from doorward.cleansers.parts.clusters import within_classes
from doorward.cleansers.parts.excess import excess


def planted(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Five classes of 300; the poison of class 0 lies apart in a direction of little variance, and blur undoes it."""
    rng = np.random.default_rng(seed)
    labels, stickered = np.repeat(np.arange(5), 300), np.zeros(1500, bool)
    stickered[:40] = True
    spread = np.r_[np.full(8, 10.0), np.full(8, 0.5)]  # eight loud directions that say nothing
    features = rng.normal(size=(1500, 16)) * spread + 3 * labels[:, None] * np.eye(16)[0]
    features[stickered, 12] += 4
    changed = np.where(stickered, rng.random(1500) < 0.75, rng.random(1500) < 0.2)
    logits, filtered = np.eye(5)[labels], np.eye(5)[np.where(changed, (labels + 1) % 5, labels)]
    given = {"features": features, "logits": logits, "filtered_logits": filtered}
    return {name: values.astype(np.float32) for name, values in given.items()} | {"labels": labels}, stickered


def test_whitening_finds_what_is_quiet_and_loud_directions_hide() -> None:
    given, stickered = planted()
    found = impurity(**given, s=ImpuritySettings(relative=True, threshold=0.5), seed=0)
    assert (found.flag & stickered).sum() >= 38 and (found.flag & ~stickered).sum() <= 2
    assert found.tested is not None and found.tested.argmax() == 0
    plain = impurity(**given, s=ImpuritySettings(relative=False, threshold=0.5), seed=0)
    assert (plain.flag & stickered).sum() <= 4


def test_a_class_that_changes_as_a_whole_has_no_excess() -> None:
    before, rng = np.zeros(400, np.int64), np.random.default_rng(1)
    after = (rng.random(400) < 0.6).astype(np.int64)
    assert excess(before[:100], after[:100], before[100:], after[100:], 0) == 0
    assert excess(before[:50], np.ones(50, np.int64), before[50:], before[50:], 0) == pytest.approx(1, abs=0.1)
    assert excess(before[50:], after[50:], before[:50], before[:50], 0) == 0  # more than half of the class


def test_variation_is_that_within_classes() -> None:
    features, labels = np.array([[0.0, 1], [2, 1], [10, 3], [12, 3]], np.float32), np.array([0, 0, 1, 1])
    np.testing.assert_allclose(within_classes(features, labels), [[1, 0], [0, 0]])
