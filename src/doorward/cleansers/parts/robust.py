"""Spread of a class that holds although some of its members were planted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_C = 10.0  # the constant C of both tests and tau, as in the code of Hayase et al.
_TAU = 0.1


def filter_outliers(values: Matrix, planted: float, *, most: int, rounds: int, seed: int) -> NDArray[np.bool_]:
    """Which rows to keep, ``[n]``, for a mean and a covariance that planted rows do not decide.

    The covariance filter of Diakonikolas, Kamath, Kane, Li, Moitra and Stewart, "Being Robust (in High Dimensions) Can
    Be Practical", ICML 2017, as SPECTRE uses it. Each round centres and whitens by what is kept. Rows whose squared
    Mahalanobis norm is above C d log(n / tau) go at once. Otherwise the filter ends when the fourth moments along
    their worst direction V are small enough, lambda <= 1 + C e log^2(1 / e); if not, the rows farthest from the median
    of p(y) = (y'Vy - tr V) / sqrt 2 go.

    Deviation: the paper removes the rows past the T at which a tail bound is exceeded. That bound says nothing below
    T = 10 log(1 / e), which features hardly reach, and the authors' code then peels off a few rows per round; ours
    removes ``most / rounds`` per round.

    Args:
        values: ``[n, d]``.
        planted: upper bound e on the share of planted rows, in (0, 1/2).
        most: at most this many rows go.
        rounds: at most about this many rounds.
        seed: of the start of the eigenvector search.
    """
    keep = np.ones(len(values), bool)
    while (budget := most - int((~keep).sum())) > 0 and keep.sum() > values.shape[1] + 1:
        rows = np.flatnonzero(keep)
        count, dimensions = len(rows), values.shape[1]
        centred = values[rows] - values[rows].mean(axis=0)
        white = centred @ inverse_root(centred.T @ centred / count)
        distance = (white**2).sum(axis=1)
        beyond = int((distance > _C * dimensions * math.log(count / _TAU)).sum())
        if not beyond:
            moment, direction = worst_fourth_moment(white, seed)
            if moment <= 1 + _C * planted * math.log(1 / planted) ** 2:
                break
            projection = (((white @ direction) * white).sum(axis=1) - np.trace(direction)) / math.sqrt(2)
            distance = np.abs(projection - np.median(projection))
            beyond = -(-most // rounds)
        keep[rows[np.argsort(-distance, kind="stable")[: min(beyond, budget)]]] = False
    return keep


def worst_fourth_moment(white: Matrix, seed: int) -> tuple[float, Matrix]:
    """Largest eigenvalue of E[(y⊗y)(y⊗y)'] - vec(I) vec(I)', and its direction as a symmetric matrix V ``[d, d]``.

    The ``d^2 x d^2`` matrix is never formed: applied to V it is E[(y'Vy) yy'] - tr(V) I. Of a normal sample it is 2.

    Args:
        white: ``[n, d]``, of zero mean and unit covariance.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    count, d = white.shape
    if d == 1:
        return float((white**4).mean() - 1), np.ones((1, 1))

    def apply(vector: Matrix) -> Matrix:
        matrix = vector.reshape(d, d)
        form = ((white @ matrix) * white).sum(axis=1)
        return ((white * form[:, None]).T @ white / count - np.trace(matrix) * np.eye(d)).ravel()

    start = np.random.default_rng(seed).normal(size=(d, d))
    operator = LinearOperator((d * d, d * d), matvec=apply, dtype=np.float64)
    value, vector = eigsh(operator, 1, which="LA", v0=(start + start.T).ravel(), ncv=min(d * d, 12), tol=1e-2)
    matrix = vector[:, 0].reshape(d, d)
    return float(value[0]), (matrix + matrix.T) / 2


def inverse_root(covariance: Matrix) -> Matrix:
    """Symmetric inverse square root; directions without variance are left out (pseudo-inverse)."""
    values, vectors = np.linalg.eigh(covariance)
    alive = values > 1e-10 * max(float(values[-1]), 1e-300)
    scale = np.where(alive, 1 / np.sqrt(np.where(alive, values, 1.0)), 0.0)
    return (vectors * scale) @ vectors.T  # type: ignore[no-any-return]


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from the median in units of 1.4826 MAD, the standard deviation of a normal sample."""
    deviation = values - np.median(values)
    scale = 1.4826 * float(np.median(np.abs(deviation)))
    if scale == 0:  # more than half of the values are equal
        scale = float(values.std()) or 1.0
    return deviation / scale
