"""Mean and covariance of a class that hold although some of its members were planted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_C = 10.0  # the constant C of both tests, and the shift of the tail search, as in the authors' code
_SHIFT = 3.0


def filter_outliers(values: Matrix, planted: float, *, most: int, rounds: int, seed: int, tau: float = 0.1) -> Matrix:
    """Which rows to keep, bool ``[n]``: the covariance filter of Diakonikolas, Kamath, Kane, Li, Moitra and Stewart.

    "Being Robust (in High Dimensions) Can Be Practical", ICML 2017, Algorithm 3, with the constants of the code of
    Hayase et al. 2021. Each round whitens by the covariance of what is kept. Rows of Mahalanobis norm above
    C d log(n / tau) go at once. Otherwise, when the fourth moments along their worst direction V are larger than those
    of a normal sample allow, the rows go whose p(y) = (y'Vy - tr V) / sqrt 2 lies further from the median than the
    tail bound allows.

    Args:
        values: centred, ``[n, d]``.
        planted: upper bound on the share of planted rows, in (0, 1/2).
        most: at most this many rows go.
        rounds: at most this many rounds.
        seed: of the start of the eigenvector search.
    """
    keep = np.ones(len(values), bool)
    for _ in range(rounds):
        budget = most - int((~keep).sum())
        rows = np.flatnonzero(keep)
        if budget <= 0 or len(rows) <= values.shape[1] + 1:
            break
        distance, limit = _distances(values[rows], planted, tau, seed)
        if distance is None:
            break
        gone = np.argsort(-distance, kind="stable")[: min(budget, int((distance > limit).sum()))]
        if not len(gone):
            break
        keep[rows[gone]] = False
    return keep


def _distances(values: Matrix, planted: float, tau: float, seed: int) -> tuple[Matrix | None, float]:
    """How far out each row is, and from where on it is too far; None when the rows look normal."""
    count, dimensions = values.shape
    white = values @ inverse_root(values.T @ values / count)
    norms = (white**2).sum(axis=1)
    far = _C * dimensions * math.log(count / tau)
    if (norms > far).any():
        return norms, far
    moment, direction = worst_fourth_moment(white, seed)
    if moment <= 1 + _C * planted * math.log(1 / planted) ** 2:
        return None, 0.0
    projection = (((white @ direction) * white).sum(axis=1) - np.trace(direction)) / math.sqrt(2)
    distance = np.abs(projection - np.median(projection))
    return distance, _tail_limit(distance, planted)


def worst_fourth_moment(white: Matrix, seed: int) -> tuple[float, Matrix]:
    """Largest eigenvalue of E[(y⊗y)(y⊗y)'] - vec(I) vec(I)' over symmetric matrices, and its matrix V ``[d, d]``.

    Never forms the ``d^2 x d^2`` matrix: applied to V it is E[(y'Vy) yy'] - tr(V) I. For a normal sample it is 2.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    count, d = white.shape

    def apply(vector: Matrix) -> Matrix:
        matrix = vector.reshape(d, d)
        form = ((white @ matrix) * white).sum(axis=1)
        return ((white * form[:, None]).T @ white / count - np.trace(matrix) * np.eye(d)).ravel()

    if d == 1:
        return float((white**4).mean() - 1), np.ones((1, 1))
    start = np.random.default_rng(seed).normal(size=(d, d))
    operator = LinearOperator((d * d, d * d), matvec=apply, dtype=np.float64)
    value, vector = eigsh(operator, 1, which="LA", v0=(start + start.T).ravel(), tol=1e-2, maxiter=20 * d)
    matrix = vector[:, 0].reshape(d, d)
    return float(value[0]), (matrix + matrix.T) / 2


def _tail_limit(distance: Matrix, planted: float) -> float:
    """The smallest T past which more rows lie than a normal sample with ``planted`` outliers could have there."""
    ordered = np.sort(distance)
    past = ordered - _SHIFT
    searched = past > 10 * math.log(1 / planted)  # below, the bound is 1 and nothing can exceed it
    if not searched.any():
        return math.inf
    t = past[searched]
    share_past = 1 - np.searchsorted(ordered, t, side="right") / len(distance)
    exceeded = share_past > 3 * planted / (t * np.log(t)) ** 2
    return float(t[exceeded][0]) if exceeded.any() else math.inf


def inverse_root(covariance: Matrix) -> Matrix:
    """Symmetric inverse square root; directions without variance are left out (pseudo-inverse)."""
    values, vectors = np.linalg.eigh(covariance)
    alive = values > 1e-10 * max(float(values[-1]), 1e-300)
    scale = np.where(alive, 1 / np.sqrt(np.where(alive, values, 1.0)), 0.0)
    return (vectors * scale) @ vectors.T  # type: ignore[no-any-return]
