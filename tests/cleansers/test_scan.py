"""SCAn: untangling against the model it assumes, the likelihood ratio by hand, and planted worlds."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from doorward.cleansers.methods.scan import ScanSettings, Untangled, likelihood_ratio, scan, untangle
from doorward.cleansers.parts.robust import inverse_root
from doorward.core.errors import DoorwardError


def world(seed: int = 0, planted: int = 0, classes: int = 10, size: int = 300) -> tuple[np.ndarray, ...]:
    """Ten classes drawn from the model: identities of variance 25, one variation; part of class 3 from class 7."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(8, 8)) / 2 + np.eye(8)
    identities = rng.normal(size=(classes, 8)) * 5
    labels = np.repeat(np.arange(classes), size)
    source = labels.copy()
    poisoned = np.zeros(len(labels), bool)
    poisoned[3 * size : 3 * size + planted] = True
    source[poisoned] = 7
    features = identities[source] + rng.normal(size=(len(labels), 8)) @ root.T
    return features.astype(np.float32), labels, poisoned, root @ root.T, identities


def plain_untangle(features: np.ndarray, labels: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The paper's EM, image by image."""
    x = features.astype(float) - features.mean(axis=0, dtype=float)
    mu = np.stack([x[labels == k].mean(axis=0) for k in labels])
    identity, variation = np.cov(mu.T, bias=True), np.cov((x - mu).T, bias=True)
    for _ in range(steps):
        for k in np.unique(labels):
            rows = labels == k
            posterior = np.linalg.inv(np.linalg.pinv(identity) + rows.sum() * np.linalg.inv(variation))
            mu[rows] = posterior @ np.linalg.inv(variation) @ x[rows].sum(axis=0)
        identity, variation = np.cov(mu.T, bias=True), np.cov((x - mu).T, bias=True)
    return identity, variation


def test_untangling_on_sums_equals_the_em_image_by_image() -> None:
    features, labels, *_ = world(size=20)
    keep = np.ones(200, bool)
    keep[40:52] = False  # classes of different sizes
    found = untangle(features[keep], labels[keep], ScanSettings(iterations=5, tolerance=1e-30))
    identity, variation = plain_untangle(features[keep], labels[keep], 5)
    assert found.identity == pytest.approx(identity, abs=1e-6) and found.variation == pytest.approx(variation, abs=1e-6)


def test_untangling_piece_by_piece_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, *_ = world(size=30)
    whole = untangle(features, labels, ScanSettings())
    monkeypatch.setattr(sys.modules["doorward.cleansers.methods.scan"], "_ROWS", 77)
    pieces = untangle(features, labels, ScanSettings())
    assert np.allclose(pieces.variation, whole.variation) and np.allclose(pieces.identity, whole.identity)
    assert np.allclose(pieces.centre, whole.centre)


def test_untangling_recovers_the_variation() -> None:
    features, labels, _, variation, _ = world(size=2000)
    assert untangle(features, labels, ScanSettings()).variation == pytest.approx(variation, abs=0.15)


def test_the_likelihood_ratio_by_hand() -> None:
    # one dimension, unit variation, a class whose identity is known to be 0: J = sum x^2 - sum (x - own mean)^2
    model = Untangled(np.zeros((1, 1)), np.eye(1), np.zeros(1))
    x = np.array([[-3.0], [-1.0], [2.0], [6.0]])
    within = 1 + 1 + 4 + 4
    assert likelihood_ratio(x, model, x @ inverse_root(np.eye(1)), within) == pytest.approx((9 + 1 + 4 + 36 - 10) / 4)
    # a free identity (large prior variance): the one mean is the class's own, 1
    free = Untangled(np.full((1, 1), 1e9), np.eye(1), np.zeros(1))
    assert likelihood_ratio(x, free, x, within) == pytest.approx((16 + 4 + 1 + 25 - 10) / 4)


@pytest.mark.parametrize("planted", [15, 60, 120])
def test_the_planted_subgroup_is_flagged_and_nothing_else(planted: int) -> None:
    features, labels, poisoned, *_ = world(planted=planted)
    found = scan(features, labels, ScanSettings(), seed=0)
    assert (found.flag == poisoned).mean() > 0.999
    assert {g.label for g in found.groups if g.flagged} == {3}
    assert found.score[poisoned].min() > found.score[~poisoned].max()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_flagged_without_poison(seed: int) -> None:
    features, labels, *_ = world(seed)
    assert not scan(features, labels, ScanSettings(), seed=seed).flag.any()


def test_a_majority_of_poison_needs_images_known_to_be_clean() -> None:
    features, labels, poisoned, *_ = world(planted=200)
    blind = scan(features, labels, ScanSettings(), seed=0)
    assert not blind.flag[poisoned].any() and blind.flag.any(), "blind, the smaller subgroup is the clean one"
    clean = np.flatnonzero(~poisoned)[::5]
    told = scan(features, labels, ScanSettings(), seed=0, clean_images=clean)
    assert (told.flag == poisoned).mean() > 0.999


def test_a_class_more_homogeneous_than_the_others_is_not_contaminated() -> None:
    features, labels, _, _, identities = world()
    features[labels == 5] = (features[labels == 5] - identities[5]) * 0.05 + identities[5]
    assert not scan(features, labels, ScanSettings(threshold=3), seed=0).flag[labels == 5].any()


@pytest.mark.parametrize("rows", [[-1], [3000], [0.5], []])
def test_rows_that_are_no_rows_are_refused(rows: list[float]) -> None:
    features, labels, *_ = world()
    with pytest.raises(DoorwardError, match=r"clean_images .*; expected row numbers from 0 to 2999, as \[0, 1, 5\]"):
        scan(features, labels, ScanSettings(), seed=0, clean_images=np.array(rows))


def test_few_classes_are_told() -> None:
    features, labels, *_ = world(classes=8)
    few = labels < 3
    found = scan(features[few], labels[few], ScanSettings(), seed=0)
    assert "3 classes: the anomaly index compares classes" in found.warnings[0]
