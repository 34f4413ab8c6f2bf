"""When a search may end early: classes are compared at equal effort, and only those that stand out go on.

Who stands out shows long before every class has come to rest. At a look all lanes have had the same steps, so that
their standings compare as their final statistics would: on a clean net one class's is as likely to be the largest as
another's. The last look decides. A first one, earlier, may end a search that finds nothing: it can only make a finding
rarer, so that the level holds without any correction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doorward.core.order_test import FEWEST_CLASSES, order_test

Tensors = dict[str, Tensor]
Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]
HOPELESS = 0.5  # p-value of the first look above which nothing is expected any more
GOES_ON = 0.2  # a class's p-value at the last look, up to which its trigger is searched to the end


class Outlook(NamedTuple):
    """What a look says: a p-value over all lanes, and which of them are worth going on, bool ``[lanes]``."""

    p_value: float
    hopeful: Rows


def outliers(standing: Floats, usual: Floats | None = None) -> Outlook | None:
    """Lanes that stand out from the others, one for each class; None while too few can be compared.

    Args:
        usual: what lanes of a clean net show at the last look, ``[lanes]``; taken out before they are compared.
    """
    known = standing if usual is None else standing - usual
    if int(np.isfinite(known).sum()) < FEWEST_CLASSES:
        return None
    test = order_test(known)
    return Outlook(test.p_value, test.classes <= GOES_ON)


@dataclass(frozen=True)
class Race:
    """Looks at all lanes of one search.

    Args:
        standing: how much every lane looks like a backdoor, ``[lanes]``; None while too few of them can be compared.
        first, last: steps from which the two looks are taken, at the first check at which the lanes can be compared.
            The first one falls away where there is no step between.
        outlook: what a look says of standings, `outliers` by default.
    """

    standing: Callable[[Tensors], Tensor | None]
    first: int
    last: int
    outlook: Callable[[Floats], Outlook | None] = outliers

    @staticmethod
    def entries(lanes: int, device: torch.device) -> Tensors:
        """What the lanes hold for it: their standing at the look that decided (NaN before), whether the first was."""
        looked = torch.zeros(lanes, dtype=torch.bool, device=device)
        return {"standing": torch.full((lanes,), torch.nan, device=device), "looked": looked}

    def look(self, held: Tensors, step: int) -> Tensor:
        """Lanes, bool ``[lanes]``, that go on after ``step`` steps; writes to ``held`` what was seen.

        Args:
            held: of all lanes, dropped ones and those that are done among them.
        """
        everyone = torch.ones_like(held["looked"])
        if bool(held["standing"].isfinite().any()) or step < self.first:
            return everyone
        if step < self.last and bool(held["looked"].all()):
            return everyone
        now = self.standing(held)
        if now is None:
            return everyone
        seen = self.outlook(now.cpu().numpy().astype(np.float64))
        if seen is None:
            return everyone
        held["looked"] |= True
        if step < self.last and seen.p_value <= HOPELESS:
            return everyone
        held["standing"] = now.to(held["standing"])
        return torch.from_numpy(seen.hopeful & (seen.p_value <= HOPELESS)).to(everyone)


def decided(held: Tensors, statistic: Floats, rested: Rows) -> tuple[Floats, Rows, bool]:
    """The statistic that classes are compared by, whose is no mere bound, ``[lanes]`` each; whether a look decided.

    Where one did, that is the standing it saw.
    """
    if "standing" not in held or not bool(held["standing"].isfinite().any()):
        return statistic, rested, False
    values = held["standing"].cpu().numpy().astype(np.float64)
    return values, np.isfinite(values), True
