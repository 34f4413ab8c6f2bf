"""Deterministic certificates where every attack can be enumerated, against a plain second implementation."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from doorward.certification.exact.methods.mean_distance import MeanDistanceSettings, mean_distance
from doorward.certification.exact.methods.mean_distance import withstands as mean_withstands
from doorward.certification.exact.methods.nearest_neighbours import NearestNeighboursSettings, Rule, nearest_neighbours
from doorward.certification.exact.methods.nearest_neighbours import withstands as neighbours_withstand
from doorward.certification.exact.parts.hamming import hamming_distances
from doorward.certification.smoothing.votes import ABSTAIN
from doorward.core.errors import DoorwardError

Array = np.ndarray[Any, np.dtype[np.int64]]
SHAPE = (1, 2, 3)


def world(seed: int, images: int, classes: int = 2, noise: float = 0.12) -> tuple[Array, Array, Array]:
    """Noisy copies of complementary pictures: training cells, labels, test cells."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2, 6)
    masks = np.array([[0] * 6, [1] * 6, [1, 1, 1, 0, 0, 0]])[:classes]
    labels = np.arange(images) % classes
    train = (base ^ masks[labels]) ^ (rng.random((images, 6)) < noise)
    test = (base ^ masks[rng.integers(0, classes, 3)]) ^ (rng.random((3, 6)) < noise)
    return train.astype(np.uint8), labels.astype(np.int64), test.astype(np.uint8)


@lru_cache(maxsize=64)
def attacks(
    seed: int, images: int, classes: int, noise: float, test: int, most: int
) -> tuple[Array, Array, Array, Array]:
    """Every attack of up to ``most`` cells: training cells, labels, test image, and (pixels, labels, test) counts."""
    train, labels, tests = world(seed, images, classes, noise)
    image = tests[test]
    n, p = train.shape
    moves = [(0, i, j) for i in range(n) for j in range(p)] + [(2, 0, j) for j in range(p)]
    moves += [(1, i, step) for i in range(n) for step in range(1, classes)]
    plans = [plan for size in range(most + 1) for plan in combinations(moves, size)]
    plans = [plan for plan in plans if len({i for kind, i, _ in plan if kind == 1}) == sum(m[0] == 1 for m in plan)]
    t = np.repeat(train[None].astype(np.int64), len(plans), axis=0)
    y, x = np.repeat(labels[None], len(plans), axis=0), np.repeat(image[None].astype(np.int64), len(plans), axis=0)
    counts = np.zeros((len(plans), 3), dtype=np.int64)
    for a, plan in enumerate(plans):
        for kind, i, j in plan:
            counts[a, kind] += 1
            if kind == 0:
                t[a, i, j] ^= 1
            elif kind == 1:
                y[a, i] = (y[a, i] + j) % classes
            else:
                x[a, j] ^= 1
    return t, y, x, counts


def ranked(distances: Array, inside: Array, rank: Array) -> Array:
    """The rank-th smallest of each row's distances within a class; a large number when there are too few."""
    ordered = np.sort(np.where(inside, distances, 10**6), axis=-1)
    return np.take_along_axis(ordered, np.broadcast_to(rank[..., None] - 1, (*ordered.shape[:-1], 1)), axis=-1)[..., 0]


def neighbours_predict(train: Array, labels: Array, test: Array, classes: int, s: NearestNeighboursSettings) -> Array:
    """The labels that the rule gives on a stack of worlds."""
    values = neighbour_values(train, labels, test, classes, s)
    ordered = np.sort(values, axis=1)
    return np.where(ordered[:, 0] == ordered[:, 1], ABSTAIN, values.argmin(axis=1))


def neighbour_values(train: Array, labels: Array, test: Array, classes: int, s: NearestNeighboursSettings) -> Array:
    """What `nearest_neighbours` compares, ``[worlds, classes]``, written down once more and plainly."""
    n = train.shape[1]
    distances = (train != test[:, None]).sum(axis=2)
    between = (train[:, :, None] != train[:, None]).sum(axis=3)
    values = []
    for c in range(classes):
        inside = labels == c
        size = inside.sum(axis=1)
        rank = np.maximum(1, -(-s.k * size // n)) if s.balanced else np.full(len(train), (s.k + 1) // 2)
        here = ranked(distances, inside, rank)
        typical = ranked(between, inside[:, None].repeat(n, axis=1), rank[:, None].repeat(n, axis=1)).sum(axis=1)
        values.append(100 * n * here - (s.centre * typical if s.centre else 0))
    return np.stack(values, axis=1)


def mean_predict(train: Array, labels: Array, test: Array, s: MeanDistanceSettings) -> Array:
    """The labels that the rule gives on a stack of worlds."""
    score = mean_score(train, labels, test, s)
    return np.where(score == 0, ABSTAIN, (score < 0).astype(np.int64))


def mean_score(train: Array, labels: Array, test: Array, s: MeanDistanceSettings) -> Array:
    """The score of `mean_distance`: blur as a matrix, weights and score as they are defined."""
    n, height, width = train.shape[1], SHAPE[1], SHAPE[2]

    def line(size: int) -> Array:
        one = np.array([[{0: 2, 1: 1}.get(abs(i - j), 0) for j in range(size)] for i in range(size)])
        return np.asarray(np.linalg.matrix_power(one, s.blur))

    kernel = np.kron(line(height), line(width))
    on = train.sum(axis=1)
    weights = (np.where(labels == 0, 1, -1)[:, :, None] * ((n * train - on[:, None]) @ kernel.T)).sum(axis=1)
    cap = max(1, s.clip * 16**s.blur * n * n // 200)
    return np.asarray((np.clip(weights, -cap, cap) * (n * test - on)).sum(axis=1))


NEIGHBOURS = [
    {"k": 3, "balanced": False, "centre": 0},
    {"k": 5, "balanced": False, "centre": 0},
    {"k": 5, "balanced": True, "centre": 0},
    {"k": 5, "balanced": True, "centre": 50},
    {"k": 3, "balanced": False, "centre": 100},
]


@pytest.mark.parametrize("values", NEIGHBOURS, ids=str)
@pytest.mark.parametrize(("classes", "images"), [(2, 8), (3, 12)])
def test_no_attack_changes_a_certified_neighbour_label(values: dict[str, Any], classes: int, images: int) -> None:
    s, exact, certified = NearestNeighboursSettings(**values), 0, 0
    for seed in range(5):
        train, labels, test = world(seed, images, classes, noise=0.08)
        proof = nearest_neighbours(train, labels, test, classes, SHAPE, s)
        for i in range(len(test)):
            most = 3 if (seed, i, classes) == (0, 0, 2) else 2
            t, y, x, counts = attacks(seed, images, classes, 0.08, i, most)
            labels_then = neighbours_predict(t, y, x, classes, s)
            assert labels_then[0] == proof.predicted[i]
            changed = labels_then != proof.predicted[i]
            cells = counts.sum(axis=1)
            assert not changed[cells <= proof.radii[i]].any()
            if proof.predicted[i] == ABSTAIN:
                continue
            for split in np.unique(counts, axis=0):
                same = (counts == split).all(axis=1)
                if neighbours_withstand(proof.evidence, i, tuple(split)):
                    assert not changed[same].any(), split
            certified += proof.radii[i] >= 1
            exact += proof.radii[i] < 2 and bool(changed[cells == proof.radii[i] + 1].any())
    assert certified > 0
    if not s.centre:
        assert exact > 0


@pytest.mark.parametrize("values", [NEIGHBOURS[0], NEIGHBOURS[3], NEIGHBOURS[4]], ids=str)
def test_every_lead_is_a_lower_bound(values: dict[str, Any]) -> None:
    """For each number of labels lost and won: no choice of images leaves less of the lead than `Rule.lead` says."""
    s, tight = NearestNeighboursSettings(**values), 0
    for seed in range(6):
        train, labels, test = world(seed, 9, noise=0.3)
        evidence = nearest_neighbours(train, labels, test, 2, SHAPE, s).evidence
        rule = Rule(s.k, s.balanced, s.centre, tuple(evidence["counts"]), tuple(map(tuple, evidence["sums"])))
        nearest = np.zeros((3, 2, 80), dtype=np.int64)
        for i, rows in enumerate(evidence["distances"]):
            for c, row in enumerate(rows):
                nearest[i, c, : len(row)] = row
        for lost, won in ((0, 1), (0, 2), (1, 0), (1, 1), (2, 0)):
            bound = rule.lead(nearest, 0, 1, lost, won)
            ours, theirs = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
            plans = [(*a, *b) for a in combinations(ours, lost) for b in combinations(theirs, won)]
            y = np.repeat(labels[None], len(plans), axis=0)
            for row, plan in zip(y, plans, strict=True):
                row[list(plan)] ^= 1
            t = np.repeat(train[None].astype(np.int64), len(plans), axis=0)
            for i in range(len(test)):
                x = np.repeat(test[i : i + 1].astype(np.int64), len(plans), axis=0)
                leads = np.diff(neighbour_values(t, y, x, 2, s), axis=1)[:, 0]
                assert leads.min() >= bound[i]
                tight += leads.min() == bound[i]
    assert s.centre or tight > 20


MEANS = [{"blur": 0, "clip": 100}, {"blur": 0, "clip": 30}, {"blur": 1, "clip": 60}, {"blur": 2, "clip": 10}]


@pytest.mark.parametrize("values", MEANS, ids=str)
def test_no_attack_changes_a_certified_mean_label(values: dict[str, Any]) -> None:
    s, certified, exact = MeanDistanceSettings(**values), 0, 0
    for seed in range(9):
        images = 9 + seed % 2
        train, labels, test = world(seed, images, noise=0.15)
        proof = mean_distance(train, labels, test, 2, SHAPE, s)
        for i in range(len(test)):
            t, y, x, counts = attacks(seed, images, 2, 0.15, i, 3 if (seed, i) == (1, 0) else 2)
            labels_then = mean_predict(t, y, x, s)
            assert labels_then[0] == proof.predicted[i]
            changed = labels_then != proof.predicted[i]
            cells = counts.sum(axis=1)
            assert not changed[cells <= proof.radii[i]].any()
            for split in np.unique(counts, axis=0):
                if proof.predicted[i] != ABSTAIN and mean_withstands(proof.evidence, i, tuple(split)):
                    assert not changed[(counts == split).all(axis=1)].any(), split
            certified += proof.radii[i] >= 1
            exact += 0 <= proof.radii[i] < 2 and bool(changed[cells == proof.radii[i] + 1].any())
    assert certified > 0 and exact > 0


@pytest.mark.parametrize("values", MEANS, ids=str)
def test_every_harm_is_an_upper_bound(values: dict[str, Any]) -> None:
    """For each number of flipped labels, then of flipped test pixels, apart: no choice takes more off the score."""
    s, attained = MeanDistanceSettings(**values), 0
    for seed in range(8):
        train, labels, test = world(seed, 11, noise=0.3)
        proof = mean_distance(train, labels, test, 2, SHAPE, s)
        for i in np.flatnonzero(proof.predicted != ABSTAIN):
            sign = 1 if proof.predicted[i] == 0 else -1
            harms, pixels = proof.evidence["label_harm"][i], proof.evidence["pixel_harm"][i]
            for flips in range(min(3, len(harms))):
                for most in range(min(3, len(pixels[flips]))):
                    plans = list(product(combinations(range(11), flips), combinations(range(6), most)))
                    y, x = np.repeat(labels[None], len(plans), axis=0), np.repeat(test[i : i + 1], len(plans), axis=0)
                    for row, (chosen, _) in zip(y, plans, strict=True):
                        row[list(chosen)] ^= 1
                    t, before = np.repeat(train[None].astype(np.int64), len(plans), axis=0), x.astype(np.int64)
                    for row, (_, chosen) in zip(x, plans, strict=True):
                        row[list(chosen)] ^= 1
                    middle = sign * mean_score(t, y, before, s)
                    start, end = sign * proof.evidence["score"][i], sign * mean_score(t, y, x.astype(np.int64), s)
                    assert (start - middle).max() <= harms[flips]
                    assert (middle - end).max() <= pixels[flips][most]
                    attained += (flips, most) in ((1, 0), (0, 1)) and (start - end).max() == harms[flips] + pixels[
                        flips
                    ][most]
    assert attained > 10


def test_label_flips_far_beyond_the_enumeration() -> None:
    """Larger worlds, attacks on labels and test pixels drawn at random but aimed: the bound holds at every radius."""
    rng = np.random.default_rng(5)
    s = MeanDistanceSettings(blur=1, clip=40)
    broken = 0
    for seed in range(4):
        train, labels, test = world(seed, 40, noise=0.2)
        proof = mean_distance(train, labels, test, 2, SHAPE, s)
        for i in np.flatnonzero(proof.radii >= 1):
            flips = 2000
            y = np.repeat(labels[None], flips, axis=0)
            x = np.repeat(test[i : i + 1].astype(np.int64), flips, axis=0)
            size = rng.integers(0, 2 * proof.radii[i] + 3, flips)
            near = np.argsort((train != test[i]).sum(axis=1) + 3 * (labels != proof.predicted[i]))
            for a in range(flips):
                count = rng.integers(0, size[a] + 1)
                chosen = near[np.argsort(np.arange(40) + rng.exponential(6, 40))[:count]]
                y[a, chosen] ^= 1
                x[a, rng.permutation(6)[: size[a] - count]] ^= 1
            cells = (y != labels).sum(axis=1) + (x != test[i]).sum(axis=1)
            changed = (
                mean_predict(np.repeat(train[None].astype(np.int64), flips, axis=0), y, x, s) != proof.predicted[i]
            )
            assert not changed[cells <= proof.radii[i]].any()
            broken += bool(changed.any())
    assert broken > 0


def test_plain_neighbours_follow_the_formula() -> None:
    """Radius r holds iff D_o^(m-l) - D_c^(m+l) > 2 (r - l) for all l <= r."""
    rng = np.random.default_rng(0)
    train = rng.integers(0, 2, (40, 64), dtype=np.uint8)
    labels = rng.integers(0, 2, 40)
    train[labels == 1, :40] |= 1
    test = np.concatenate([train[:10] ^ (rng.random((10, 64)) < 0.1)]).astype(np.uint8)
    m = 6
    proof = nearest_neighbours(
        train, labels, test, 2, (1, 8, 8), NearestNeighboursSettings(k=2 * m - 1, balanced=False, centre=0)
    )
    distances = hamming_distances(test, train)
    for i, row in enumerate(distances):
        lists = [np.sort(row[labels == c]) for c in (0, 1)]
        c = proof.predicted[i]
        right = ABSTAIN
        if c != ABSTAIN:
            ours, theirs = lists[c], lists[1 - c]
            for r in range(m):
                if all(theirs[m - flips - 1] - ours[m + flips - 1] > 2 * (r - flips) for flips in range(r + 1)):
                    right = r
        assert proof.radii[i] == right
    assert proof.radii.max() >= 2


def test_hamming_distances_match_a_direct_count() -> None:
    rng = np.random.default_rng(0)
    for cells in (1, 7, 64, 65, 784):
        a, b = rng.integers(0, 2, (5, cells), dtype=np.uint8), rng.integers(0, 2, (9, cells), dtype=np.uint8)
        assert (hamming_distances(a, b) == (a[:, None] != b).sum(axis=2)).all()


def test_unclipped_unblurred_score_is_the_centred_mean_distance() -> None:
    train, labels, test = world(3, 11)
    from doorward.certification.exact.parts.mean_rule import fit

    rule = fit(train, labels, SHAPE, 0, 100)

    def gap(images: Array) -> Array:
        distances = (images[:, None] != train).sum(axis=2)
        return distances[:, labels == 1].mean(axis=1) - distances[:, labels == 0].mean(axis=1)

    sizes = np.bincount(labels)
    expected = sizes[0] * sizes[1] * len(train) * (gap(test) - gap(train).mean())
    assert np.allclose(rule.scores(test), expected)


def test_many_training_images_use_coarser_levels_and_stay_below_the_fine_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from doorward.certification.exact.parts import mean_bounds

    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    train = ((rng.random((120, 64)) < 0.3) ^ (labels[:, None] & (np.arange(64) < 40))).astype(np.uint8)
    test = train[:20] ^ (rng.random((20, 64)) < 0.1).astype(np.uint8)
    s = MeanDistanceSettings(blur=0, clip=60)
    fine = mean_distance(train, labels, test, 2, (1, 8, 8), s).radii
    monkeypatch.setattr(mean_bounds, "_MANY_IMAGES", 10)
    coarse = mean_distance(train, labels, test, 2, (1, 8, 8), s).radii
    assert (coarse <= fine).all() and (coarse >= fine - 2).all() and fine.max() > 4


def test_bad_input() -> None:
    train, labels, test = world(0, 8)
    with pytest.raises(DoorwardError, match="2 classes|expected 2"):
        mean_distance(train, labels, test, 3, SHAPE, MeanDistanceSettings())
    with pytest.raises(DoorwardError, match="one class"):
        mean_distance(train, np.zeros(8, dtype=np.int64), test, 2, SHAPE, MeanDistanceSettings())
    with pytest.raises(DoorwardError, match="0 or 1"):
        mean_distance(train * 7, labels, test, 2, SHAPE, MeanDistanceSettings())
    with pytest.raises(DoorwardError, match="images of shape"):
        mean_distance(train, labels, test, 2, (1, 2, 2), MeanDistanceSettings())
    with pytest.raises(DoorwardError, match="k = 33"):
        nearest_neighbours(train, labels, test, 2, SHAPE, NearestNeighboursSettings())
    with pytest.raises(DoorwardError, match="without training images"):
        nearest_neighbours(train, labels, test, 3, SHAPE, NearestNeighboursSettings(k=3))
    with pytest.raises(ValueError, match="odd"):
        NearestNeighboursSettings(k=4)


def test_a_class_too_small_for_the_rank_is_never_predicted_nor_an_error() -> None:
    """Unbalanced and centred: the rank 6 of 11 neighbours is more than the four images of the second class."""
    train, labels, test = world(3, 16)
    labels = np.where(np.arange(16) < 12, 0, 1)
    s = NearestNeighboursSettings(k=11, balanced=False, centre=50)
    assert set(nearest_neighbours(train, labels, test, 2, (1, 1, train.shape[1]), s).predicted.tolist()) <= {0, ABSTAIN}
