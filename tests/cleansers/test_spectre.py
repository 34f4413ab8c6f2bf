"""SPECTRE: the matrix exponential, the filter, and planted worlds where plain spectral signatures fail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from doorward.cleansers.methods.spectral import SpectralSettings, spectral
from doorward.cleansers.methods.spectre import SpectreSettings, component_counts, que_scores, spectre
from doorward.cleansers.parts.robust import filter_outliers, inverse_root, worst_fourth_moment


def test_que_scores_equal_the_formula_with_the_matrix_exponential() -> None:
    white = np.random.default_rng(0).normal(size=(200, 5)) * [1, 1.2, 0.8, 1, 1.5]
    white[:, 1] += 0.9 * white[:, 4]  # off-diagonal entries: the exponential of the entries is another matrix
    covariance = white.T @ white / 200
    q = expm(4 * (covariance - np.eye(5)) / (np.linalg.norm(covariance, 2) - 1))
    expected = np.einsum("ij,jk,ik->i", white, q, white) / np.trace(q)
    assert que_scores(white, 4.0) == pytest.approx(expected)
    entrywise = np.exp(4 * (covariance - np.eye(5)) / (np.linalg.norm(covariance, 2) - 1))
    wrong = np.einsum("ij,jk,ik->i", white, entrywise, white) / np.trace(entrywise)
    assert np.abs(que_scores(white, 4.0) - wrong).max() > 0.1


def test_que_scores_between_the_norm_and_the_top_direction() -> None:
    white = np.random.default_rng(1).normal(size=(300, 4)) * [1, 1, 1, 2]
    assert que_scores(white, 0.0) == pytest.approx((white**2).sum(axis=1) / 4), "alpha 0: the squared norm"
    values, vectors = np.linalg.eigh(white.T @ white / 300)
    assert que_scores(white, 1e4) == pytest.approx((white @ vectors[:, -1]) ** 2), "alpha large: the top direction"
    assert values[-1] > 2
    exact = np.repeat([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], 3, axis=0)
    assert que_scores(exact, 4.0) == pytest.approx(np.ones(12)), "no excess over the identity: Q is the identity"


def test_the_worst_fourth_moment_equals_that_of_the_whole_matrix() -> None:
    white = np.random.default_rng(2).standard_t(5, size=(400, 3))
    white = white @ inverse_root(white.T @ white / 400)
    squares = np.einsum("ni,nj->nij", white, white).reshape(400, 9)
    whole = squares.T @ squares / 400 - np.outer(np.eye(3).ravel(), np.eye(3).ravel())
    value, direction = worst_fourth_moment(white, 0)
    assert value == pytest.approx(np.linalg.eigvalsh(whole)[-1], rel=1e-2)
    assert direction == pytest.approx(direction.T) and np.linalg.norm(direction) == pytest.approx(1)
    normal = np.random.default_rng(3).normal(size=(200_000, 3))
    assert worst_fourth_moment(normal, 0)[0] == pytest.approx(2, abs=0.1)


def test_the_filter_restores_the_covariance() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(2000, 6))
    values[:100, 0] += 12
    keep = filter_outliers(values, 0.05, most=200, rounds=10, seed=0)
    assert not keep[:100].any() and 200 >= (~keep).sum() >= 100
    assert np.cov(values.T)[0, 0] > 5 and np.cov(values[keep].T)[0, 0] == pytest.approx(1, abs=0.15)
    assert filter_outliers(rng.normal(size=(3000, 6)), 0.05, most=300, rounds=10, seed=0).all(), "normal rows stay"


def hidden(seed: int = 0, planted: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three classes of 1,000 with one direction of large variance; poison of class 1 stands out in a small one."""
    rng = np.random.default_rng(seed)
    scales = np.concatenate([[20, 10, 5], np.full(9, 1.0)])
    features = (rng.normal(size=(3000, 12)) * scales + 3).astype(np.float32)
    labels = np.repeat(np.arange(3), 1000)
    poisoned = np.zeros(3000, bool)
    poisoned[1000 : 1000 + planted] = True
    features[poisoned, 7] += 8
    return features, labels, poisoned


def test_poison_in_a_direction_of_small_variance_is_found_where_spectral_signatures_fail() -> None:
    features, labels, poisoned = hidden()
    known = {"poisoning_rate": 40 / 3000, "target_class": 1}
    plain = spectral(features, labels, SpectralSettings(), **known)
    found = spectre(features, labels, SpectreSettings(), seed=0, **known)
    assert plain.flag[poisoned].mean() < 0.3
    assert found.flag[poisoned].all() and found.flag.sum() == 60, "1.5 times as many as are poisoned"


def test_with_the_rate_alone_the_target_is_found_and_other_classes_are_left() -> None:
    features, labels, poisoned = hidden()
    found = spectre(features, labels, SpectreSettings(), seed=0, poisoning_rate=40 / 3000)
    assert found.flag[poisoned].all() and found.flag.sum() == 60 and not found.flag[labels != 1].any()
    means = {g.label: g.statistic for g in found.groups}
    assert means[1] > 1.5 > max(means[0], means[2])


def test_component_counts_are_squares_apart() -> None:
    assert component_counts(100, 10) == [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
    assert component_counts(5, 10)[0] == 1 and component_counts(5, 10)[-1] == 5 and component_counts(1, 10) == [1]


def test_tiny_classes_and_dead_features() -> None:
    features, labels, poisoned = hidden()
    dead = np.concatenate([features, np.zeros((3000, 4), np.float32)], axis=1)
    found = spectre(dead, labels, SpectreSettings(), seed=0, poisoning_rate=40 / 3000, target_class=1)
    assert found.flag[poisoned].all()
    labels = labels.copy()
    labels[:5] = 7
    told = spectre(features, labels, SpectreSettings(choices=2), seed=0, poisoning_rate=0.01, target_class=7)
    assert told.warnings == ("classes 7: fewer than 10 images, not inspected",) and not told.flag.any()


def test_a_direction_that_few_images_use_does_not_make_their_class_the_target() -> None:
    features, labels, poisoned = hidden()
    faint = np.random.default_rng(9).normal(size=(3000, 1)).astype(np.float32) / 100
    features = np.concatenate([features, faint], axis=1)
    features[2000:2003, -1] = 3.0  # without a ridge, removing these three divides by next to no variance
    s = SpectreSettings(choices=3)
    assert spectre(features, labels, s, seed=0, poisoning_rate=40 / 3000).flag[poisoned].all()
    bare = spectre(features, labels, s.model_copy(update={"ridge": 0.0}), seed=0, poisoning_rate=40 / 3000)
    assert max(bare.groups, key=lambda g: g.statistic).label == 2
