"""Which images are suspects: what the methods flag that accuse a class, less what a found trigger speaks against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.bool_]
AGREEING_SHARE = 0.5  # of the images that either of two methods flags, both must flag: then they agree (Jaccard index)


def suspected_images(
    labels: NDArray[np.int64],
    flags: Mapping[str, Rows],
    accusing: Mapping[int, Sequence[str]],
    kinds: Mapping[str, str],
) -> Rows:
    """The suspected images ``[N]``.

    All that the methods flag in a class that they accuse. But where a method found a trigger that works, and another
    flags largely the same images, the rest of what that other flags is its error, unless a third kind says the same.

    Args:
        flags: by method ``[N]``.
        accusing: by class, the methods that accuse it.
        kinds: by method, what its evidence is made of; ``triggers`` where it is a trigger.
    """
    found = np.zeros(len(labels), bool)
    for label, methods in accusing.items():
        inside = labels == label
        own = {name: flags[name] & inside for name in methods}
        shown = [name for name in methods if kinds.get(name) == "triggers"]
        for name, flag in own.items():
            others = [own[o] for o in methods if kinds.get(o) != kinds.get(name)]
            explained = name not in shown and any(agreement(flag, own[o]) >= AGREEING_SHARE for o in shown)
            found |= flag & np.any(others, axis=0) if explained else flag
    return found


def agreement(one: Rows, other: Rows) -> float:
    """Jaccard index of two methods' flags; 0 where neither flags anything."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0
