"""Activation clustering: the split, its three checks, and what it must not do."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from doorward.cleansers.methods.activation import ActivationSettings, activation, exclusionary_ratio, split_in_two


def planted(share: float = 0.15, disguised: bool = False) -> tuple[np.ndarray, ...]:
    """Three classes of 300; part of class 0 looks (in pixels) like class 1, its features lie apart.

    ``disguised``: the part apart looks like its own class, as a clean class with two modes does.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 300)
    poisoned = np.zeros(900, bool)
    poisoned[: int(300 * share)] = True
    features = rng.normal(size=(900, 20)).astype(np.float32)
    features[poisoned, :5] += 6
    pixels = rng.integers(0, 50, (900, 9, 8, 1)).astype(np.uint8)
    looks = np.where(poisoned & (not disguised), 1, labels)
    pixels[np.arange(900), looks * 3, 2, 0] = 255
    return features, pixels, labels, poisoned


# whitening by ICA shrinks the direction of a small cluster to unit variance: it needs a larger share and few dimensions
@pytest.mark.parametrize(("reduce", "share", "dimensions"), [("pca", 0.15, 10), ("pca", 0.05, 10), ("ica", 0.3, 3)])
def test_the_planted_cluster_is_flagged_and_nothing_else(
    reduce: Literal["pca", "ica"], share: float, dimensions: int
) -> None:
    features, pixels, labels, poisoned = planted(share)
    s = ActivationSettings(reduce=reduce, dimensions=dimensions)
    found = activation(features, pixels, labels, s, seed=0)
    assert found.flag[poisoned].mean() > 0.95 and not found.flag[~poisoned].any()
    assert found.score[poisoned].min() > np.median(found.score[~poisoned])


def test_a_clean_class_with_two_modes_is_spared_by_the_exclusionary_check() -> None:
    features, pixels, labels, apart = planted(disguised=True)
    assert not activation(features, pixels, labels, ActivationSettings(), seed=0).flag.any()
    without = activation(features, pixels, labels, ActivationSettings(exclusionary=False), seed=0)
    assert without.flag[apart].mean() > 0.95


def test_nothing_is_flagged_without_clusters() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 200)
    pixels = rng.integers(0, 255, (600, 8, 8, 1)).astype(np.uint8)
    s = ActivationSettings(exclusionary=False)
    assert not activation(rng.normal(size=(600, 20)).astype(np.float32), pixels, labels, s, seed=0).flag.any()


def test_exclusionary_ratio_separates_foreign_from_own() -> None:
    features, pixels, labels, poisoned = planted()
    del features
    assert exclusionary_ratio(pixels, labels, np.flatnonzero(poisoned), seed=0) < 0.1
    own = np.flatnonzero(~poisoned & (labels == 0))[:50]
    assert exclusionary_ratio(pixels, labels, own, seed=0) > 10


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_split_of_equal_points_has_no_silhouette() -> None:
    _, silhouette, closeness = split_in_two(np.zeros((30, 2)), seed=0)
    assert silhouette == 0 and (closeness == 0).all()


def test_small_classes_are_left_out_with_a_warning() -> None:
    features, pixels, labels, _ = planted()
    keep = np.concatenate([np.arange(15), np.arange(300, 900)])
    found = activation(features[keep], pixels[keep], labels[keep], ActivationSettings(), seed=0)
    assert "classes 0: fewer than 20 images" in found.warnings[0]


def test_with_the_target_known_its_smaller_cluster_is_flagged_and_no_other_class() -> None:
    features, pixels, labels, poisoned = planted(share=0.45)  # more than the blind rule takes for a small cluster
    assert not activation(features, pixels, labels, ActivationSettings(), seed=0).flag.any()
    known = activation(features, pixels, labels, ActivationSettings(), seed=0, target_class=0)
    assert known.flag[poisoned].mean() > 0.95 and not known.flag[~poisoned].any()
    other = activation(features, pixels, labels, ActivationSettings(), seed=0, target_class=1)
    assert other.flag[labels == 1].any() and not other.flag[labels != 1].any()
