"""Spectral signatures against a plain SVD, and its two decision rules."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.cleansers.methods.spectral import SpectralSettings, project, spectral
from doorward.cleansers.parts.robust import robust_z


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three classes of 200 in 12 dimensions; 20 members of class 1 are shifted by 8 standard deviations."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(600, 12)).astype(np.float32) + 3
    labels = np.repeat(np.arange(3), 200)
    poisoned = np.zeros(600, bool)
    poisoned[205:225] = True
    features[poisoned, 4] += 8
    return features, labels, poisoned


@pytest.mark.parametrize("centre", [True, False])
def test_projection_equals_the_svd(centre: bool) -> None:
    # Algorithm 1: v is the top right singular vector of the centred matrix; the authors' code projects uncentred
    values = np.random.default_rng(1).normal(size=(50, 7)).astype(np.float32) * np.arange(1, 8) + 2
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    expected = np.abs((centred if centre else values.astype(np.float64)) @ vectors[0])
    found, share = project(values, centre)
    assert np.abs(found) == pytest.approx(expected) and share == pytest.approx(singular[0] ** 2 / (singular**2).sum())


def test_blind_rule_finds_the_planted_images_and_nothing_else() -> None:
    features, labels, poisoned = planted()
    found = spectral(features, labels, SpectralSettings())
    assert found.flag[poisoned].all() and not found.flag[~poisoned].any()
    assert found.score[poisoned].min() > found.score[~poisoned].max()


def test_blind_rule_is_quiet_on_normal_features() -> None:
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(6000, 16)).astype(np.float32), np.repeat(np.arange(6), 1000)
    # P(|z| > 4) = 6.3e-5: of 6,000 normal values 0.4 are expected; 5 or more have probability 6e-5
    assert spectral(features, labels, SpectralSettings()).flag.sum() < 5


def test_known_rate_removes_one_and_a_half_times_as_many() -> None:
    features, labels, poisoned = planted()
    all_classes = spectral(features, labels, SpectralSettings(), poisoning_rate=20 / 600)
    assert [int(all_classes.flag[labels == k].sum()) for k in range(3)] == [30, 30, 30]
    target = spectral(features, labels, SpectralSettings(), poisoning_rate=20 / 600, target_class=1)
    assert target.flag.sum() == 30 and target.flag[poisoned].all() and target.flag[labels == 1].sum() == 30


def test_robust_z_of_a_constant_is_zero() -> None:
    assert (robust_z(np.ones(9)) == 0).all()


def test_a_class_of_two_is_left_out_with_a_warning() -> None:
    features, labels, _ = planted()
    labels = labels.copy()
    labels[:2] = 5
    assert "classes 5: fewer than 3 images" in spectral(features, labels, SpectralSettings()).warnings[0]
