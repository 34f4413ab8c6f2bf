"""Gaussian mixtures whose number of clusters is chosen by the poster's BIC."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Mixture:
    """A class's features, hard-assigned to clusters.

    Args:
        assignment: ``[n]``, cluster of every image (maximum a posteriori).
        costs: the criterion for 1, 2, ... clusters, as far as it was followed.
    """

    assignment: NDArray[np.int64]
    costs: tuple[float, ...]

    @property
    def clusters(self) -> int:
        """Number of clusters chosen."""
        return int(np.argmin(self.costs)) + 1


def poster_bic(log_likelihood: float, count: int, dimensions: int, clusters: int) -> float:
    """-log L + (t^2 + 3t + 2)/4 * K * log n (Xiang, Miller and Kesidis 2019, slide "Our Cluster Impurity Defense").

    Equals scikit-learn's ``bic / 2 + log(n) / 2``: the poster counts K weights where K - 1 are free.
    """
    t = dimensions
    return -log_likelihood + (t * t + 3 * t + 2) / 4 * clusters * math.log(count)


def fit_mixture(values: NDArray[np.float64], *, most: int, seed: int, fit_limit: int, patience: int = 2) -> Mixture:
    """Fit K = 1, 2, ... full-covariance Gaussians until the criterion has risen ``patience`` times in a row.

    Args:
        values: ``[n, t]``; a single row is one cluster, with nothing to fit.
        most: largest K tried; never more than there are rows.
        fit_limit: at most this many images, drawn by ``seed``, are used to fit; all are assigned.
    """
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(seed)
    chosen = values if len(values) <= fit_limit else values[np.sort(rng.permutation(len(values))[:fit_limit])]
    count, dimensions = chosen.shape
    if count == 1:  # scikit-learn fits two rows or more
        return Mixture(np.zeros(1, np.int64), (0.0,))
    # the ridge follows the scale of the features, so that the choice of K does not hang on their unit
    ridge = 1e-6 * float(chosen.var(axis=0).mean()) + 1e-12
    best, rises = None, 0
    costs: list[float] = []
    for clusters in range(1, min(most, count) + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged after max_iter: the criterion is still comparable
            model = GaussianMixture(clusters, reg_covar=ridge, max_iter=100, tol=1e-3, random_state=seed).fit(chosen)
        cost = poster_bic(float(model.score(chosen)) * count, count, dimensions, clusters)
        if not costs or cost < min(costs):
            best, rises = model, 0
        else:
            rises += 1
        costs.append(cost)
        if rises >= patience:
            break
    assert best is not None
    return Mixture(best.predict(values).astype(np.int64), tuple(costs))
