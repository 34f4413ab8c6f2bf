"""Whether a search had come to rest when its steps were used up, told by its own record.

A statistic that still moves is that of an unfinished search: after 20 steps of `mask` classes differ by how fast their
masks shrink, not by how small they become.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOVING = 0.1  # a value that changed by a larger share over the last looks is not at rest


def remembered(trail: Tensor, value: Tensor) -> Tensor:
    """The last looks at every lane, ``[lanes, looks]``, with a new one in the place of the oldest."""
    return torch.cat([trail[:, 1:], value[:, None]], 1)


def at_rest(trail: Tensor) -> Tensor:
    """Lanes whose value hardly changed from the oldest look to the newest, bool; lanes with fewer looks are not."""
    oldest, newest = trail[:, 0], trail[:, -1]
    return trail.isfinite().all(1) & ((newest - oldest).abs() <= MOVING * oldest.abs())


def advice(method: str, steps: int, default: int) -> str:
    """What to do about a search that did not come to rest."""
    return f"in {steps} steps; expected more: --set {method}.steps={default if steps < default else 3 * steps}"
