"""Clusters of every class in feature space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doorward.cleansers.parts.components import principal_components
from doorward.cleansers.parts.mixture import fit_mixture
from doorward.cleansers.parts.robust import inverse_root
from doorward.cleansers.parts.threads import one_thread
from doorward.cleansers.suspicion import members_by_class

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
CLUSTERS = 3  # of `divided`
_DIMENSIONS = 8
_FIT = 5000  # images of a class that a mixture is fitted to
_WHITE, _PER_PARAMETER, _MOST = 16, 8.0, 10  # of `whitened`


def divided(features: Floats, labels: Labels, classes: int, seed: int) -> Labels:
    """A cluster of every image, ``[N]``, 0 the smallest of its class: Gaussian mixtures in 8 principal components."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    found = np.zeros(len(labels), np.int64)
    rng = np.random.default_rng(seed)
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2 * CLUSTERS * _DIMENSIONS:  # too few for a mixture; any third of them
            found[rows] = rng.permutation(len(rows)) % CLUSTERS
            continue
        chosen = rows if len(rows) <= _FIT else np.sort(rng.permutation(rows)[:_FIT])
        with one_thread():
            plane = PCA(min(_DIMENSIONS, features.shape[1]), svd_solver="full").fit(features[chosen])
            ridge = 1e-4 * float(plane.transform(features[chosen]).var(axis=0).mean()) + 1e-12
            mixture = GaussianMixture(CLUSTERS, reg_covar=ridge, n_init=3, random_state=seed)
            assigned = mixture.fit(plane.transform(features[chosen])).predict(plane.transform(features[rows]))
        sizes = np.bincount(assigned, minlength=CLUSTERS)
        found[rows] = np.argsort(np.argsort(sizes, kind="stable"), kind="stable")[assigned]
    return found


def whitened(features: Floats, labels: Labels, seed: int) -> Labels:
    """A cluster of every image, ``[N]``, as many a class as the criterion takes: mixtures in whitened features.

    Whitening by what classes have in common brings what one of them alone varies in to the front.
    """
    found = np.zeros(len(labels), np.int64)
    whitener = inverse_root(within_classes(features, labels))
    with one_thread():
        for _, rows in members_by_class(labels):
            values = features[rows].astype(np.float64) @ whitener
            wanted = affordable_dimensions(len(rows), values.shape[1], _PER_PARAMETER, always=True)
            values = principal_components(values, min(wanted, _WHITE))
            found[rows] = fit_mixture(values, most=_MOST, seed=seed, fit_limit=_FIT).assignment
    return found


def within_classes(features: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covariance ``[t, t]`` of the features about the mean of their class, all classes together."""
    total = np.zeros((features.shape[1],) * 2)
    for _, rows in members_by_class(labels):
        values = features[rows].astype(np.float64)
        values -= values.mean(axis=0)
        total += values.T @ values
    return total / len(features)


def affordable_dimensions(count: int, dimensions: int, images_per_parameter: float, *, always: bool = False) -> int:
    """Dimensions in which to cluster ``count`` images.

    All of them when a full covariance, t (t + 1) / 2 parameters, has no more parameters than there are images, as in
    the poster; else, or ``always``, as many as leave ``images_per_parameter`` images for each parameter.
    """
    if not always and count >= dimensions * (dimensions + 1) // 2:
        return dimensions
    affordable = int((np.sqrt(1 + 8 * count / images_per_parameter) - 1) / 2)
    return max(1, min(dimensions, affordable))
