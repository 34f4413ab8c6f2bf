"""By how much more of a cluster changes its decision than of other images of its class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doorward.core.stats import Rate


def excess(
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    before_rest: NDArray[np.int64],
    after_rest: NDArray[np.int64],
    label: int,
) -> float:
    """How much larger a share of a cluster changes its decision than of the rest of its class, for certain; 0 if not.

    The lower end of the cluster's one-sided 95 % interval less the upper end of the rest's. A cluster of more than
    half of its class is the rest itself.
    """
    decided, others = before == label, before_rest == label
    if not 0 < decided.sum() <= others.sum():
        return 0.0
    inside = Rate(int((after[decided] != label).sum()), int(decided.sum()), 0.9)
    outside = Rate(int((after_rest[others] != label).sum()), int(others.sum()), 0.9)
    return max(0.0, inside.interval[0] - outside.interval[1])
