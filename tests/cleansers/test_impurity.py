"""Cluster impurity: the poster's criterion, the measure's values, and planted worlds."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from doorward.cleansers.methods.impurity import (
    ImpuritySettings,
    cluster_impurity,
    impurity,
    principal_components,
)
from doorward.cleansers.parts.clusters import affordable_dimensions
from doorward.cleansers.parts.filters import (
    FILTERS,
    candidates,
    mean_filter,
    mean_share,
    median_filter,
    quantise,
    widest,
)
from doorward.cleansers.parts.leftovers import lookalikes, misfits
from doorward.cleansers.parts.mixture import fit_mixture, poster_bic


@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_the_posters_criterion_is_half_of_scikit_learns_bic_and_half_a_log(clusters: int) -> None:
    values = np.random.default_rng(0).normal(size=(300, 4))
    model = GaussianMixture(clusters, random_state=0).fit(values)
    ours = poster_bic(model.score(values) * 300, 300, 4, clusters)
    assert ours == pytest.approx(model.bic(values) / 2 + math.log(300) / 2)


@pytest.mark.parametrize(
    ("kept", "total", "expected"),
    [
        (10, 10, 0.0),
        (0, 9, -math.log(0.5 / 10)),  # p = 0 stays finite
        (5, 9, -math.log(5.5 / 10)),
        (607, 1000, 0.5),  # the threshold .5 is p = .607
    ],
)
def test_impurity_of_a_cluster_by_hand(kept: int, total: int, expected: float) -> None:
    before = np.full(total + 3, 2)
    after = np.concatenate([np.full(kept, 2), np.full(total - kept, 1), [2, 2, 2]])
    before[total:] = 0  # not decided as the class: must not count, whatever the filter does
    assert cluster_impurity(before, after, 2) == pytest.approx(expected, abs=2e-3)


def test_a_cluster_never_decided_as_its_class_is_not_judged() -> None:
    assert cluster_impurity(np.array([1, 1]), np.array([0, 0]), 2) is None


def planted(seed: int = 0, poisoned_share: float = 0.1) -> tuple[np.ndarray, ...]:
    """Two classes of 600 in 5 dimensions; part of class 0 lies apart and changes its decision under the filter."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(1200, 5)).astype(np.float32)
    labels = np.repeat([0, 1], 600)
    poisoned = np.zeros(1200, bool)
    poisoned[: int(600 * poisoned_share)] = True
    features[labels == 1] += 5
    features[poisoned] += np.array([12, 0, -12, 0, 0])
    logits = np.eye(2, dtype=np.float32)[labels]
    filtered = logits.copy()
    filtered[poisoned] = [0, 1]
    return features, logits, filtered, labels, poisoned


@pytest.mark.parametrize("share", [0.05, 0.1, 0.6])
def test_the_planted_cluster_is_flagged_and_nothing_else(share: float) -> None:
    features, logits, filtered, labels, poisoned = planted(poisoned_share=share)
    found = impurity(features, logits, filtered, labels, ImpuritySettings(), seed=0)
    assert (found.flag == poisoned).all()
    flagged = [g for g in found.groups if g.flagged]
    assert {g.label for g in flagged} == {0} and all(g.statistic > 2 for g in flagged)
    assert sum(g.size for g in found.groups) == 1200


def test_the_same_clusters_without_changed_decisions_are_not_flagged() -> None:
    features, logits, _, labels, _ = planted()
    found = impurity(features, logits, logits, labels, ImpuritySettings(), seed=0)
    assert not found.flag.any() and (found.score == 0).all()


def test_the_number_of_clusters_is_found() -> None:
    rng = np.random.default_rng(3)
    centres = np.array([[0, 0, 0], [20, 0, 0], [0, 20, 0], [0, 0, 20]])
    values = np.concatenate([rng.normal(size=(150, 3)) + c for c in centres])
    fitted = fit_mixture(values, most=10, seed=0, fit_limit=10_000)
    assert fitted.clusters == 4
    pure = [set(fitted.assignment[150 * k : 150 * (k + 1)]) for k in range(4)]
    assert all(len(p) == 1 for p in pure) and len(set.union(*pure)) == 4
    subsampled = fit_mixture(values, most=10, seed=0, fit_limit=300)
    assert subsampled.clusters == 4 and len(subsampled.assignment) == 600, "all are assigned, some are fitted"


def test_too_few_images_are_projected_with_a_warning() -> None:
    assert affordable_dimensions(2080, 64, 8.0) == 64, "64 * 65 / 2 = 2,080 parameters"
    assert affordable_dimensions(2079, 64, 8.0) == 22, "22 * 23 / 2 * 8 = 2,024; 23 * 24 / 2 * 8 = 2,208"
    assert affordable_dimensions(1, 64, 8.0) == 1
    features, logits, filtered, labels, poisoned = planted()
    wide = np.concatenate([features, np.random.default_rng(1).normal(size=(1200, 60)).astype(np.float32)], axis=1)
    found = impurity(wide, logits, filtered, labels, ImpuritySettings(), seed=0)
    assert "projected on 11 principal components" in found.warnings[0], "11 * 12 / 2 * 8 = 528 <= 600 images"
    assert found.flag[poisoned].mean() > 0.95 and not found.flag[~poisoned].any()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("count", range(1, 10))
def test_a_class_of_a_few_images_is_judged_in_no_more_clusters_than_it_has(count: int, relative: bool) -> None:
    rng = np.random.default_rng(count)
    labels = np.repeat([0, 1], [60, count])
    features = rng.normal(size=(60 + count, 5)).astype(np.float32)
    logits = np.eye(2, dtype=np.float32)[labels]
    filtered = np.eye(2, dtype=np.float32)[np.zeros(60 + count, int)]  # the small class changes, as a whole
    settings = ImpuritySettings(relative=relative)
    for alike in (False, True):
        features[60:] = features[60] if alike else features[60:]
        found = impurity(features, logits, filtered, labels, settings, seed=0)
        own = [g for g in found.groups if g.label == 1]
        assert sum(g.size for g in own) == count and all(g.statistic > 0 for g in own)
        assert not alike or len(own) == 1, "images that are all the same are one cluster"
        assert found.tested is not None and np.isfinite(found.tested).all()
        assert not found.flag[labels == 0].any()
        assert not (found.flag.any() and (relative or count == 1)), "one image, or no rest of the class, is no excess"
        assert found.flag[60:].all() or not alike or relative or count == 1


def test_a_single_row_is_a_cluster_and_two_are_two_at_most() -> None:
    for rows in (1, 2, 3):
        fitted = fit_mixture(np.arange(5.0 * rows).reshape(rows, 5) ** 2, most=10, seed=0, fit_limit=100)
        assert fitted.clusters <= rows and len(fitted.costs) <= rows
        assert len(fitted.assignment) == rows and fitted.assignment.max() < fitted.clusters


def test_dead_features_do_not_break_the_covariance() -> None:
    features, logits, filtered, labels, poisoned = planted()
    dead = np.concatenate([features, np.zeros((1200, 3), np.float32)], axis=1)
    assert principal_components(dead.astype(np.float64), 8).shape == (1200, 5)
    assert (impurity(dead, logits, filtered, labels, ImpuritySettings(), seed=0).flag == poisoned).all()


def test_choice_of_clusters_does_not_hang_on_the_unit_of_the_features() -> None:
    values = planted()[0].astype(np.float64)
    one, other = (fit_mixture(values * unit, most=5, seed=0, fit_limit=9999) for unit in (1.0, 1e-3))
    assert one.clusters == other.clusters


def test_filters_by_hand() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 1, 1] = 1.0
    two = mean_filter(image, 2)
    assert two[0, 0, :2, :2].tolist() == [[0.25, 0.25], [0.25, 0.25]] and two.sum() == 1
    assert torch.allclose(mean_filter(image, 3)[0, 0, :3, :3], torch.full((3, 3), 1 / 9))
    assert median_filter(image).sum() == 0, "a lone pixel does not survive a median"
    assert quantise(torch.tensor([0.0, 0.06, 0.09, 1.0]), 8).tolist() == pytest.approx([0, 0, 1 / 7, 1])


@pytest.mark.parametrize("name", ["gamma", "quantise4"])
def test_filters_of_grey_values_keep_black_and_white_and_their_order(name: str) -> None:
    values = torch.linspace(0, 1, 35).view(1, 1, 7, 5)
    changed = FILTERS[name](values, torch.Generator())
    assert (changed.flatten().diff() >= 0).all() and not torch.allclose(changed, values, atol=0.05)
    assert changed.flatten()[[0, -1]].tolist() == [0, 1] and changed.shape == values.shape


@pytest.mark.parametrize("name", sorted(set(FILTERS) - {"noise", "gamma", "quantise4"}))
def test_filters_keep_constant_images_and_sizes(name: str) -> None:
    image = torch.full((2, 3, 7, 5), 3 / 7)
    assert torch.allclose(FILTERS[name](image, torch.Generator()), image)


def test_misfits_are_flagged_in_flagged_classes_alone() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    decided = np.array([0, 1, 0, 0, 1, 1])
    flag = np.array([True, False, False, False, False, False])
    assert misfits(flag, decided, labels).tolist() == [False, True, False, False, False, False]
    assert not misfits(np.zeros(6, bool), decided, labels).any(), "a set in which nothing is flagged stays whole"


def test_misfits_add_what_the_classifier_has_not_learnt_and_leave_scores_alone() -> None:
    features, logits, filtered, labels, poisoned = planted()
    decided = logits.argmax(axis=1)
    odd = np.flatnonzero((labels == 0) & ~poisoned)[:3]
    other = np.flatnonzero(labels == 1)[:3]
    changed = logits.copy()
    changed[[*odd, *other]] = np.eye(2, dtype=np.float32)[1 - decided[[*odd, *other]]]
    plain, more = (
        impurity(features, changed, filtered, labels, ImpuritySettings(misfits=m), seed=0) for m in (False, True)
    )
    assert set(np.flatnonzero(more.flag & ~plain.flag)) == set(odd)
    assert (plain.flag & poisoned).sum() == poisoned.sum() and (more.score == plain.score).all()


def test_lookalikes_change_under_the_filter_and_lie_with_the_flagged_ones() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    features = rng.normal(0, 0.3, (400, 2)).astype(np.float32)
    features[:80, 0] += 4  # the poison, of which 20 were left out, and ten images beside it that hold still
    features[200:240, 0] += 4  # a class in which nothing is flagged
    flag = np.arange(400) < 60
    filtered = labels.copy()
    filtered[:70] = 1  # of the unflagged ones beside the poison, ten hold still
    filtered[100:150] = 1  # clean images whose decision changes, but not there
    filtered[200:240] = 0
    found = lookalikes(flag, features, filtered, labels)
    assert np.flatnonzero(found).tolist() == list(range(60, 70))
    assert not lookalikes(np.zeros(400, bool), features, filtered, labels).any(), (
        "nothing flagged, nothing to look like"
    )
    assert not lookalikes(flag, features, np.where(flag, 1, labels), labels).any(), "nobody else changes"
    assert (lookalikes(flag, features * 1000 - 7, filtered, labels) == found).all(), "whatever the scale"


def test_lookalikes_are_added_to_the_flags_and_leave_scores_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features, logits, filtered, labels, _ = planted()
    found = np.arange(len(labels)) % 7 == 0

    def fake(flag: NDArray[np.bool_], *given: NDArray[Any]) -> NDArray[np.bool_]:
        assert (flag == plain.flag).all(), "misfits are none of those that others are likened to"
        assert all((a == b).all() for a, b in zip(given, (features, filtered.argmax(1), labels), strict=True))
        return found

    plain = impurity(features, logits, filtered, labels, ImpuritySettings(), seed=0)
    monkeypatch.setattr(sys.modules["doorward.cleansers.methods.impurity"], "lookalikes", fake)
    settings = ImpuritySettings(misfits=True, lookalikes=True)
    more = impurity(features, logits, filtered, labels, settings, seed=0)
    assert (more.flag == plain.flag | found).all() and (more.score == plain.score).all()
    assert plain.flag.any() and (more.flag & ~plain.flag).any()


def test_a_small_cluster_is_found_in_few_dimensions_and_not_in_all() -> None:
    rng = np.random.default_rng(0)
    labels, few = np.repeat([0, 1], 2000), np.arange(4000) < 60
    features = rng.normal(size=(4000, 40)).astype(np.float32)
    features[:, 0] *= 3
    features[few, 0] += 25
    logits = np.eye(2, dtype=np.float32)[labels]
    filtered = np.eye(2, dtype=np.float32)[np.where(few, 1, labels)]
    whole, reduced = (
        impurity(features, logits, filtered, labels, ImpuritySettings(dimensions=d), seed=0) for d in (0, 4)
    )
    assert not whole.flag.any(), "the criterion charges 861 parameters for a cluster of 60 images"
    assert (reduced.flag == few).all() and not reduced.warnings


def test_a_wide_mean_in_two_passes_is_the_mean_of_the_window() -> None:
    image = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0))
    for size in (4, 5, 8):
        padded = torch.nn.functional.pad(image, ((size - 1) // 2, size // 2) * 2, mode="replicate")
        windows = padded.unfold(2, size, 1).unfold(3, size, 1)
        assert torch.allclose(mean_filter(image, size), windows.mean(dim=(4, 5)), atol=1e-6)
    assert torch.equal(mean_share(image, 24), mean_filter(image, 2))
    assert torch.equal(mean_share(image, 3), mean_filter(image, 6)), "a third of the shorter side, 17"


@pytest.mark.parametrize("side", [28, 32, 47])
def test_small_pictures_have_one_filter_of_two_pixels(side: int) -> None:
    assert candidates("mean", side) == ("mean2",) and candidates("median3", 224) == ("median3",)
    assert len(candidates("mean", 48)) == 4


def test_the_widest_window_that_leaves_most_decisions_is_taken_and_no_narrower_one_tried() -> None:
    """Whatever the windows change: it is the last of all that leave 80 %, as if every one had been tried."""
    logits = np.eye(2, dtype=np.float32)[np.zeros(100, int)]
    names, tried = ("a", "b", "c", "d"), list[str]()
    for changed in itertools.product((1, 20, 21), repeat=4):
        filtered = {
            name: np.eye(2, dtype=np.float32)[(np.arange(100) < n).astype(int)]
            for name, n in zip(names, changed, strict=True)
        }

        def under(name: str, filtered: dict[str, NDArray[np.float32]] = filtered) -> NDArray[np.float32]:
            tried.append(name)
            return filtered[name]

        tried.clear()
        fit = [name for name, n in zip(names, changed, strict=True) if n <= 20]
        taken = widest(logits, under, names)
        assert taken == (fit[-1] if fit else "a")
        assert tried == [name for name in "dcb" if name >= taken]


def test_a_wider_window_has_the_threshold_of_the_authors_unless_one_is_given() -> None:
    assert ImpuritySettings().under("mean2", False).threshold == ImpuritySettings().threshold == 1.61
    assert ImpuritySettings().under("mean-16th", True).threshold == 0.5
    assert ImpuritySettings(threshold=1.0).under("mean-16th", True).threshold == 1.0
