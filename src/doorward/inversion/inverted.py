"""`Inverted`: the same things from every inversion: a statistic per class, triggers, whether it converged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from doorward.core.triggers import Trigger
from doorward.inversion.distribution.triggers import TriggerDistribution


def spread(values: ArrayLike, labels: Sequence[int], classes: int, fill: Any = np.nan) -> NDArray[Any]:
    """Values of some classes as an array over all, ``[K]``; the others get ``fill``."""
    given = np.asarray(values)
    found = np.full(classes, fill, given.dtype if len(given) and not isinstance(fill, float) else type(fill))
    found[list(labels)] = given
    return found


@dataclass(frozen=True, eq=False)
class Inverted:
    """What an inversion says about a classifier.

    Args:
        statistic: float64 ``[K]``, higher is more suspicious; NaN for classes that were not looked at.
        meaning: what the statistic is, in words.
        converged: bool ``[K]``; the statistic of a class that did not converge is a bound.
        works: bool ``[K]``, classes with a trigger that does what it should; only they can be targets.
        ran_out: bool ``[K]``, classes that were optimised to the end; the others were dropped early or not looked at.
        triggers: for each class, the triggers found, best first; empty for methods that make none.
        size: float64 ``[K]``, the trigger's size in the method's unit; NaN where there is none.
        distributions: per class, for methods that model all triggers at once.
        details: more numbers for ``run.json``.
        warnings: what the user must know before trusting this.
        controls: classes drawn at random, which the others that ran out are compared with; empty when all classes
            ran out, or those that look most like targets did.
        even: whether the statistic is that of all classes at equal effort, and of none a bound.
        pairs: float64 ``[K, K]``, how near every source class (row) is to every target, NaN where that is not known;
            None for methods that do not look at pairs. See `doorward.inversion.judge.pairs.shift_test`.
        prior: whether the statistic is a mere hint, on which no verdict rests.
    """

    statistic: NDArray[np.float64]
    meaning: str
    converged: NDArray[np.bool_]
    works: NDArray[np.bool_]
    ran_out: NDArray[np.bool_]
    triggers: Mapping[int, tuple[Trigger, ...]] = field(default_factory=dict)
    size: NDArray[np.float64] | None = None
    distributions: Mapping[int, TriggerDistribution] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    controls: tuple[int, ...] = ()
    even: bool = False
    pairs: NDArray[np.float64] | None = None
    prior: bool = False

    def compared(self, reference: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The statistic as it is tested, ``[K]``; NaN of classes that were not optimised to the end.

        Args:
            reference: what the statistic of a clean net is, per class ``[K]``.
        """
        return np.where(self.ran_out, self.statistic - (0.0 if reference is None else reference), np.nan)

    def ranked(self) -> list[int]:
        """Classes that have triggers, most suspicious first."""
        value = np.nan_to_num(self.statistic, nan=-np.inf)
        return sorted(self.triggers, key=lambda label: -value[label])

    def without(self, labels: Collection[int]) -> Inverted:
        """The same with some classes as if they had not been looked at."""
        out = np.isin(np.arange(len(self.statistic)), list(labels))
        return replace(
            self,
            statistic=np.where(out, np.nan, self.statistic),
            converged=self.converged & ~out,
            works=self.works & ~out,
            ran_out=self.ran_out & ~out,
            triggers={k: v for k, v in self.triggers.items() if k not in labels},
            distributions={k: v for k, v in self.distributions.items() if k not in labels},
            controls=tuple(k for k in self.controls if k not in labels),
            pairs=None if self.pairs is None else np.where(out[None], np.nan, self.pairs),
        )
