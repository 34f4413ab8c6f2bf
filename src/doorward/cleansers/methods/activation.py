"""Activation clustering."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.parts.stamping import chunks
from doorward.cleansers.suspicion import Group, Suspicion, list_classes, members_by_class
from doorward.core.memmaps import release
from doorward.core.methods import Settings, method

Floats = NDArray[np.float32]
_SILHOUETTE_SAMPLE = 2000  # the silhouette needs all pairwise distances
_SURROGATE_SAMPLE = 10_000
_LEAST = 0.02  # a silhouette below it is none


class ActivationSettings(Settings):
    """Settings of activation clustering."""

    reduce: Literal["ica", "pca"] = Field(
        "pca", description="components of the features: principal or independent ones"
    )
    dimensions: int = Field(10, ge=1, description="number of components")
    silhouette: float = Field(0.15, ge=-1, le=1, description="flag only classes whose silhouette is at least this")
    share: float = Field(0.35, gt=0, le=0.5, description="flag only a cluster smaller than this share of its class")
    exclusionary: bool = Field(True, description="flag only a cluster that a learner trained without it calls foreign")


@method(
    "cleanse",
    "activation",
    settings=ActivationSettings,
    given={"features", "pixels", "labels", "seed"},
    accepts={"target_class"},
    kind="features",
)
def activation(
    features: Floats,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    s: ActivationSettings,
    *,
    seed: int,
    target_class: int | None = None,
) -> Suspicion:
    """Split every class in two clusters and flag the smaller one where the split is clear and lopsided.

    Activation clustering, Chen et al. 2018 (arXiv 1811.03728): independent components (or principal ones) of the
    penultimate features, 10 dimensions, 2-means per class; then silhouette (they recommend a threshold of .10
    to .15), relative size, and exclusionary reclassification: a cluster is foreign when a learner trained without
    it gives its images to one other class more often than to their own (l/p < 1). Theirs retrains the network;
    ours is a ridge classifier on the pixels, which costs a second instead of a training and has never seen the
    network. Principal components are the default: on small classes FastICA whitens noise up to the scale of the
    split and 2-means then misses it from one seed to the next. No rule flags the smaller cluster of every class
    unconditionally; with the target class known (knowledge that an auditor does not have) its smaller cluster is
    flagged without further checks, and no other class.

    Args:
        features: penultimate features ``[N, t]``.
        pixels: uint8 ``[N, H, W, C]``, for the exclusionary check.
        labels: training labels ``[N]``.
        seed: of ICA, 2-means and subsampling.
        target_class: the attacked class.

    Returns: an image's score is its class's silhouette, signed by how much closer it is to the smaller cluster;
        a group per cluster, its statistic the silhouette; tested is its logarithm.

    Fails when: poison is about half of its class or more (the smaller cluster is then the clean one, or none is
        small), when poison does not form a cluster of its own, or when a clean class has two natural modes.
    """
    score = np.zeros(len(labels), np.float32)
    flag = np.zeros(len(labels), bool)
    groups: list[Group] = []
    tiny: list[int] = []
    tested = np.full(int(labels.max()) + 1, np.nan)
    for label, rows in members_by_class(labels):
        if len(rows) < 2 * s.dimensions:
            tiny.append(label)
            continue
        reduced = reduce_dimensions(features[rows], s, seed)
        small, silhouette, closeness = split_in_two(reduced, seed)
        score[rows] = silhouette * closeness
        tested[label] = math.log(max(silhouette, _LEAST))
        if target_class is not None:
            suspect = label == target_class
        else:
            suspect = bool(small.mean() < s.share and silhouette >= s.silhouette)
            if suspect and s.exclusionary:
                suspect = exclusionary_ratio(pixels, labels, rows[small], seed) < 1
        if suspect:
            flag[rows[small]] = True
        groups += _groups(label, small, silhouette, s.silhouette, bool(flag[rows].any()))
    told = [f"classes {list_classes(tiny)}: fewer than {2 * s.dimensions} images, not inspected"] if tiny else []
    return Suspicion(score, flag, tuple(groups), tuple(told), None if target_class is not None else tested)


def reduce_dimensions(features: Floats, s: ActivationSettings, seed: int) -> NDArray[np.float64]:
    """Independent (FastICA) or principal components ``[n, dimensions]`` of one class's features."""
    from sklearn.decomposition import PCA, FastICA

    values = features.astype(np.float64)
    dimensions = min(s.dimensions, values.shape[1], np.linalg.matrix_rank(values - values.mean(axis=0)))
    pca = PCA(dimensions, svd_solver="covariance_eigh")
    reduced = pca.fit_transform(values)
    if s.reduce == "pca":
        return reduced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unconverged rotation is as good a basis for 2-means
        return FastICA(dimensions, whiten="unit-variance", random_state=seed, max_iter=200).fit_transform(reduced)


def split_in_two(reduced: NDArray[np.float64], seed: int) -> tuple[NDArray[np.bool_], float, NDArray[np.float64]]:
    """2-means: membership of the smaller cluster ``[n]``, the silhouette, and signed closeness in [-1, 1]."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    means = KMeans(2, n_init=4, random_state=seed).fit(reduced)
    second = means.labels_ == 1
    small = second if second.mean() <= 0.5 else ~second
    if small.all() or not small.any():
        return small, 0.0, np.zeros(len(reduced))
    sample = min(len(reduced), _SILHOUETTE_SAMPLE)
    silhouette = float(silhouette_score(reduced, means.labels_, sample_size=sample, random_state=seed))
    distances = means.transform(reduced)
    to_small, to_large = distances[:, int(means.labels_[small][0])], distances[:, int(means.labels_[~small][0])]
    return small, silhouette, (to_large - to_small) / np.maximum(to_large + to_small, 1e-12)


def exclusionary_ratio(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], cluster: NDArray[np.int64], seed: int
) -> float:
    """l / p of a cluster: how often a learner trained without it gives its images to their own class (l), over how
    often to the most frequent other class (p). Below 1 the cluster looks foreign.

    Args:
        cluster: rows of the cluster; all of one class.
    """
    from sklearn.linear_model import RidgeClassifier

    rng = np.random.default_rng(seed)
    outside = np.setdiff1d(np.arange(len(labels)), cluster)
    fitted = rng.permutation(outside)[:_SURROGATE_SAMPLE]
    asked = rng.permutation(cluster)[:_SURROGATE_SAMPLE]
    learner = RidgeClassifier(alpha=10.0).fit(_coarse(pixels, fitted), labels[fitted])
    votes = np.bincount(learner.predict(_coarse(pixels, asked)), minlength=int(labels.max()) + 1)
    own = int(labels[cluster[0]])
    others = np.delete(votes, own)
    return float(votes[own]) / max(1.0, float(others.max()))


def _coarse(pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Images averaged over blocks to at most 16 x 16, flattened, on the scale [0, 1]."""
    block = max(1, -(-max(pixels.shape[1:3]) // 16))
    height, width = (length // block for length in pixels.shape[1:3])
    found = np.empty((len(rows), height, width, pixels.shape[3]), np.float32)
    order = np.argsort(rows)  # sorted reads: kinder to a memory map
    for some in chunks(pixels, len(rows)):
        chosen = pixels[rows[order[some]], : height * block, : width * block]
        blocks = chosen.reshape(len(chosen), height, block, width, block, -1)
        found[order[some]] = blocks.mean(axis=(2, 4), dtype=np.float32) / 255
        release(pixels)
    return found.reshape(len(rows), -1)


def _groups(label: int, small: NDArray[np.bool_], silhouette: float, threshold: float, flagged: bool) -> list[Group]:
    sizes = int((~small).sum()), int(small.sum())
    return [
        Group(label, 0, sizes[0], silhouette, threshold, 0),
        Group(label, 1, sizes[1], silhouette, threshold, sizes[1] if flagged else 0),
    ]
