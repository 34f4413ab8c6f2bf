"""Tests of what an inversion shows of pairs of classes: one target of several sources, a target for every class."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from doorward.core.order_test import FEWEST_CLASSES, OrderTest, order_test

Floats = NDArray[np.float64]
_SPARED = 0.2  # of the classes: so many rows may stand out without any meaning
_DRAWS = 40_000


def target_statistic(standing: Floats) -> Floats:
    """How near every class is from the others, ``[K]``: the mean of its column, each row less its own mean.

    Some classes are easy to leave whatever the target. NaN where nothing of a column is known.

    Args:
        standing: ``[K, K]``, source by target, higher is nearer; NaN where nothing is known, as on the diagonal.
    """
    return _means(standing - _means(standing, axis=1), axis=0)[0]


def shift_test(standing: Floats, *, natural: bool = True) -> OrderTest | None:
    """Whether most classes are unusually near to one other class each, as an all-to-all backdoor makes them.

    Every column loses its mean, what leads to a class from anywhere. Classes that look alike, such as cats and dogs,
    are near to each other both ways; so what is mutual is taken out as well, the lesser of the two. Then each source's
    targets are compared as classes are (`order_test`). A few classes have a twin of their own on a clean net too (4 and
    9): the smallest fifth of the rows' p-values is left out, and minus the sum of the others' logarithms is compared
    with what uniform p-values give, by 40,000 draws (as Fisher 1932 combines tests, of the larger ones alone).

    Args:
        standing: as for `target_statistic`.
        natural: False where what clean nets show is taken out already; then what is mutual stays.

    Returns: the p-value, the same for the nearest class of every row; None with fewer than four rows of five classes.

    Fails when: classes are exchanged in pairs, unless ``natural`` is False; rows share the classes they are compared
        with, so that their p-values are not quite independent.
    """
    left = standing - _means(standing, axis=0)
    if natural:
        left = left - _mutual(left)
    rows = [row for row in left if np.isfinite(row).sum() >= FEWEST_CLASSES]
    if len(rows) < FEWEST_CLASSES:
        return None
    each = np.sort([order_test(row).p_value for row in rows])
    spared = max(1, round(_SPARED * len(rows)))
    found = float(-np.log(each[spared:]).sum())
    null = _null(len(rows), spared)
    p = (1 + len(null) - int(np.searchsorted(null, found))) / (len(null) + 1)
    classes = np.ones(standing.shape[1])
    classes[list(nearest(standing).values())] = p
    return OrderTest(float(p), classes)


def nearest(standing: Floats) -> dict[int, int]:
    """The class that every source is nearest to, beside what leads to a class from anywhere; of sources with any."""
    left = standing - _means(standing, axis=0)
    known = np.flatnonzero(np.isfinite(left).any(axis=1)).tolist()
    return {source: int(np.nanargmax(left[source])) for source in known}


def _mutual(left: Floats) -> Floats:
    """What both directions of a pair have above the mean of their rows, ``[K, K]``; 0 where one is not known."""
    above = np.maximum(left - _means(left, axis=1), 0.0)
    return np.nan_to_num(np.minimum(above, above.T), nan=0.0)


def _means(values: Floats, axis: int) -> Floats:
    """Means of what is known along an axis, which stays; NaN where nothing is."""
    known = np.isfinite(values)
    count, total = (v.sum(axis=axis, keepdims=True) for v in (known, np.where(known, values, 0.0)))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@lru_cache(maxsize=16)
def _null(rows: int, spared: int) -> Floats:
    draws = np.sort(np.random.default_rng(0).random((_DRAWS, rows)), axis=1)
    return np.sort(-np.log(draws[:, spared:]).sum(axis=1))
