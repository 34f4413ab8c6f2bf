"""Planted or natural: a trigger that a class has by nature leads there in clean nets, too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from doorward.core.order_test import FEWEST_CLASSES
from doorward.core.stats import Rate

WORKS = 0.5  # success on the suspect from which a trigger is one
_LEAST_SPREAD = 0.5  # of log odds between classes: a factor of 1.6, which success on some hundred images hardly tells


def natural_test(label: int, own: Mapping[int, Rate], carried: Mapping[int, Rate]) -> float | None:
    """Chance that a trigger that is natural works as badly on clean nets as that of this class does.

    The log odds of success on the clean nets are compared with those of the other classes' triggers, as a further draw
    from the same normal distribution (Student's t, one-sided). An adversarial picture works on other nets, as far as
    they learned the same features (Papernot, McDaniel and Goodfellow 2016); a planted trigger works where it was
    planted.

    Args:
        own: success of every class's trigger on the suspect, of which those count that work.
        carried: of the same triggers on the clean nets, all of these together.

    Returns: None where the class's trigger does not work or fewer than four others do.

    Fails when: the clean nets are so unlike the suspect that no trigger works on them: then it is near 0.5.
    """
    working = [k for k in carried if k in own and own[k].trials and carried[k].trials and own[k].value >= WORKS]
    others = [k for k in working if k != label]
    if label not in working or len(others) < FEWEST_CLASSES:
        return None
    from scipy.stats import t

    rest = np.array([_log_odds(carried[k]) for k in others])
    spread = max(float(rest.std(ddof=1)), _LEAST_SPREAD) * np.sqrt(1 + 1 / len(rest))
    return float(t.cdf((_log_odds(carried[label]) - rest.mean()) / spread, len(rest) - 1))


def _log_odds(rate: Rate) -> float:
    return float(np.log((rate.hits + 0.5) / (rate.trials - rate.hits + 0.5)))
