"""The verdict of a screening, decided here alone: whether more images are flagged than clean ones explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doorward.core.results import MOST_IMAGES, Finding, Judgement
from doorward.core.text import count, name, number, percent, plural

LEVEL = 0.05  # of the test

RULE = (
    "A threshold is set on clean images, so that a chosen share of them is flagged. The p-value is the chance of as "
    "many flags or more when every image is clean (one-sided exact binomial test). It takes the chosen share for the "
    "true one, which varies about it: the fewer clean images set the threshold and the more are screened, the more "
    f"often clean images come out as suspicious than the level of {LEVEL:g} says."
)


def p_value(flags: NDArray[np.bool_], false_rejection: float) -> float:
    """Chance of as many flags or more when every image is clean; 1 without images."""
    from scipy.stats import binomtest

    if not len(flags):
        return 1.0
    return float(binomtest(int(flags.sum()), len(flags), false_rejection, alternative="greater").pvalue)


def judge(
    method: str, scores: NDArray[np.float64], flags: NDArray[np.bool_], false_rejection: float
) -> tuple[Judgement, tuple[Finding, ...]]:
    """``suspicious`` when more images are flagged than the false rejection rate explains, at `LEVEL`.

    Args:
        scores, flags: ``[N]``.
    """
    p, flagged = p_value(flags, false_rejection), int(flags.sum())
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
