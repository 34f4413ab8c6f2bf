"""The verdict: one decision for all inversions, from order statistics of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError

Floats = NDArray[np.float64]
FEWEST_CLASSES = 4  # a spread needs two others besides a suspect, and one to spare
_DRAWS = 40_000
_CELLS = 8_000_000  # most numbers drawn for one null distribution


@dataclass(frozen=True, eq=False)
class OrderTest:
    """p-values of one statistic: of the model as a whole, and of every class.

    Args:
        p_value: chance that K classes without a backdoor show an outlier as clear as the clearest here.
        classes: the same per class, ``[K]``, corrected for the number of classes; 1 where a class cannot be a target.
    """

    p_value: float
    classes: Floats


def most_targets(compared: int) -> int:
    """How many classes may be targets at once: a third of them, at most 20, leaving three to compare with."""
    return max(1, min(compared // 3, compared - 3, 20))


def order_test(statistic: Floats, *, compared: NDArray[np.bool_] | None = None, least: float = 0.0) -> OrderTest:
    """Test whether the largest statistics stand out from the others.

    Stepwise removal, after Rosner 1983 (generalised extreme Studentised deviate), one-sided: with the statistics in
    descending order, R_i = (t_(i) - mean) / sd, both over those below it, for i = 1 .. `most_targets`. Two targets hide
    each other in R_1 but not in R_2. Each R_i is turned into a p-value by its own null distribution, the smallest
    counts, and is itself compared with what the smallest is under the null (Westfall and Young 1993), so that the
    model's p-value is exact when the statistics of clean classes are independent normal with any mean and spread; all
    null distributions are drawn by a fixed seed. A class's p-value is that of the smallest over all i that include it.

    Args:
        statistic: ``[K]``, higher is more suspicious.
        compared: classes that were optimised to the end; the others only count as classes that might have stood out.
        least: a spread of clean classes below which none is believed; it makes p-values larger, never smaller.

    Raises:
        DoorwardError: fewer than `FEWEST_CLASSES` classes to compare.
    """
    statistic = np.asarray(statistic, np.float64)
    inside = np.isfinite(statistic) if compared is None else compared & np.isfinite(statistic)
    count = int(inside.sum())
    if count < FEWEST_CLASSES:
        raise DoorwardError(f"verdict: {count} classes to compare; expected at least {FEWEST_CLASSES}")
    positions = np.flatnonzero(inside)
    order = positions[np.argsort(-statistic[positions], kind="stable")]
    most = most_targets(count)
    found = studentised(statistic[order][None], most, least)[0]
    classes = np.ones(len(statistic))
    worst = np.zeros(most)
    for total in {count, len(statistic)}:  # how early dropping relates to the end is unknown: the larger p counts
        worst = np.maximum(worst, adjusted(found, count, total))
    classes[order[:most]] = worst
    return OrderTest(float(worst[0]), classes)


def control_test(statistic: Floats, controls: Sequence[int], total: int) -> OrderTest:
    """Test statistics against those of classes that were drawn at random.

    A class is compared with the controls (one of them with the others) as a further draw from the same normal
    distribution: Student's t with one degree of freedom fewer than controls. Sidak's correction for all ``total``
    classes allows any way to choose which of them have a statistic: those without one count as not standing out.

    Args:
        statistic: ``[K]``, higher is more suspicious; NaN for classes that were not looked at.
        controls: drawn without looking at the statistic; NaN among them are left out.
        total: classes that might have stood out.

    Raises:
        DoorwardError: fewer than `FEWEST_CLASSES` controls with a statistic.

    Fails when: many of the controls are targets themselves.
    """
    from scipy.stats import t

    statistic = np.asarray(statistic, np.float64)
    drawn = [k for k in controls if np.isfinite(statistic[k])]
    if len(drawn) < FEWEST_CLASSES:
        raise DoorwardError(f"verdict: {len(drawn)} control classes to compare with; expected {FEWEST_CLASSES} or more")
    classes = np.ones(len(statistic))
    for label in np.flatnonzero(np.isfinite(statistic)):
        others = statistic[[k for k in drawn if k != label]]
        spread = max(float(others.std(ddof=1)), 1e-12) * np.sqrt(1 + 1 / len(others))
        alone = t.sf((statistic[label] - others.mean()) / spread, len(others) - 1)
        classes[label] = -np.expm1(total * np.log1p(-min(alone, 1 - 1e-16)))
    return OrderTest(float(classes.min()), classes)


def adjusted(found: Floats, count: int, total: int) -> Floats:
    """p-values of the ranks 1 .. most, ``[..., most]``, rising: adjusted for several ranks and all classes."""
    null, smallest = _null(count, total)
    places = [np.searchsorted(null[:, i], found[..., i]) for i in range(found.shape[-1])]
    each = (1 + len(null) - np.stack(places, axis=-1)) / (len(null) + 1)
    from_here = np.minimum.accumulate(each[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray((1 + np.searchsorted(smallest, from_here, side="right")) / (len(smallest) + 1))


def studentised(descending: Floats, most: int, least: float = 0.0) -> Floats:
    """R_1 .. R_most of every row of ``[rows, count]``, sorted descending: distance to the mean below, in deviations."""
    count = descending.shape[1]
    centred = descending - descending.mean(axis=1, keepdims=True)
    sums, squares = (np.cumsum(v[:, ::-1], axis=1)[:, ::-1] for v in (centred, centred**2))
    below = count - 1 - np.arange(most)
    mean = sums[:, 1 : most + 1] / below
    variance = np.maximum(squares[:, 1 : most + 1] - below * mean**2, 0) / (below - 1)
    gap = centred[:, :most] - mean
    return np.asarray(gap / np.maximum(np.maximum(np.sqrt(variance), least), 1e-9 * np.maximum(np.abs(gap), 1e-300)))


@lru_cache(maxsize=32)
def _null(count: int, total: int) -> tuple[Floats, Floats]:
    """Null distributions for the ``count`` largest of ``total`` classes: of each R_i and of the smallest p-value."""
    rng, most = np.random.default_rng(0), most_targets(count)
    draws = int(min(_DRAWS, max(2_000, _CELLS // total)))
    values = -np.sort(-rng.standard_normal((draws, total)), axis=1)[:, :count]
    found = studentised(values, most)
    ordered = np.sort(found, axis=0)
    each = np.stack([draws - np.searchsorted(ordered[:, i], found[:, i]) for i in range(most)], axis=1) + 1
    return ordered, np.sort(each.min(axis=1) / (draws + 1))


def combine(tests: Sequence[OrderTest]) -> OrderTest:
    """Several methods' tests of the same classes as one: 1 - (1 - smallest)^number (Sidak 1967).

    Exact when the methods are independent on a clean classifier, cautious when they agree.
    """
    everyone = np.array([[t.p_value, *t.classes] for t in tests]).min(axis=0)
    corrected = np.array([several(p, len(tests)) for p in everyone.tolist()])
    return OrderTest(float(corrected[0]), corrected[1:])


def several(smallest: float, number: int) -> float:
    """The smallest of ``number`` p-values, corrected for their number: 1 - (1 - p)^number (Sidak 1967)."""
    return float(-np.expm1(number * np.log1p(-min(smallest, 1 - 1e-16))))


def gamma_p_value(values: Floats) -> float | None:
    """The order-statistic p-value of Xiang, Miller and Kesidis 2020 and of MM-BD; shown, decides nothing.

    A gamma distribution is fitted to all values but the largest; p = 1 - F(largest)^K. None with fewer than three
    others, or when one is not positive, or when they are all alike.
    """
    from scipy.stats import gamma

    finite = np.sort(values[np.isfinite(values)])
    if len(finite) < 4 or finite[0] <= 0 or np.ptp(finite[:-1]) < 1e-6 * finite[-2]:
        return None
    shape, _, scale = gamma.fit(finite[:-1], floc=0)
    return float(-np.expm1(len(finite) * gamma.logcdf(finite[-1], shape, scale=scale)))
