"""From a recipe's name and settings to a stamp."""

from __future__ import annotations

from typing import Any

import torch

from doorward.core import methods
from doorward.core.triggers import Stamp


def make_stamp(recipe: str, shape: tuple[int, int, int], seed: int = 0, **settings: Any) -> Stamp:
    """The stamp of a recipe for images of ``shape`` (C, H, W); ``seed`` decides random colours and places."""
    found = methods.get("attack", recipe)
    stamp: Stamp = found.function(shape, found.configure(settings), torch.Generator().manual_seed(seed))
    return stamp
