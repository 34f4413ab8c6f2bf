"""The verdict of a screening, decided here alone: whether more images are flagged than clean ones explain."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from doorward.core.results import MOST_IMAGES, Finding, Judgement
from doorward.core.text import count, name, number, percent, plural

LEVEL = 0.05  # of the test

RULE = (
    "A threshold is set on clean images, so that a chosen share of them is flagged. The p-value is the chance of as "
    "many flags or more when every image is clean. It counts that the share holds on average alone: the threshold is a "
    "score of few clean images (one-sided exact test, beta-binomial). Suspicious: p is at or below "
    f"{LEVEL:g}."
)


def p_value(flags: NDArray[np.bool_], false_rejection: float, set_on: int) -> float:
    """Chance of as many flags or more when every image is clean; 1 without images.

    The threshold is the r-th smallest of n clean scores (`threshold_at`). The share of new clean images above it is
    Beta(n + 1 - r, r) distributed whatever the scores are (Vovk 2012), so that their number is beta-binomial.

    Args:
        set_on: n, clean images that set the threshold.
    """
    from scipy.special import logsumexp
    from scipy.stats import betabinom

    flagged = int(flags.sum())
    if not flagged:
        return 1.0
    above = set_on + 1 - rank_of(false_rejection, set_on)
    tail = betabinom.logpmf(np.arange(flagged, len(flags) + 1), len(flags), above, set_on + 1 - above)
    return min(1.0, float(np.exp(logsumexp(tail))))  # the sum of small terms: 1 - cdf would lose them


def rank_of(false_rejection: float, count: int) -> int:
    """r such that the r-th smallest of ``count`` clean scores is exceeded with the probability asked for at most."""
    return math.ceil((1 - false_rejection) * (count + 1) - 1e-9)


def judge(
    method: str, scores: NDArray[np.float64], flags: NDArray[np.bool_], false_rejection: float, set_on: int
) -> tuple[Judgement, tuple[Finding, ...]]:
    """``suspicious`` when more images are flagged than the false rejection rate explains, at `LEVEL`.

    Args:
        scores, flags: ``[N]``.
        set_on: clean images that set the threshold.
    """
    p, flagged = p_value(flags, false_rejection, set_on), int(flags.sum())
    expected = f"Of clean images, {percent(false_rejection)} are flagged; p = {number(p)}."
    told = f"{name(method)} flags {count(flagged)} of {plural(len(flags), 'image')}"
    if p > LEVEL:
        headline = f"No more images are flagged than clean ones would be: {count(flagged)} of {count(len(flags))}"
        return Judgement(level="nothing found", p_value=p, headline=headline, reasons=(expected,)), ()
    rows = np.flatnonzero(flags)
    worst = rows[np.argsort(-scores[rows], kind="stable")][:MOST_IMAGES]
    finding = Finding(
        method=method,
        level="suspicious",
        sentence=f"{told}, more than clean images explain.",
        p_value=p,
        flagged=flagged,
        size=len(flags),
        images=tuple(worst.tolist()),
    )
    headline = f"Stamped images among them: {told}"
    return Judgement(level="suspicious", p_value=p, headline=headline, reasons=(expected,)), (finding,)
