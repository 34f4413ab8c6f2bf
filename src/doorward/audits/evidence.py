"""What speaks against every class before anything is tried: four kinds, each with p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doorward.audits.parts.contradiction import Contradictions
from doorward.audits.parts.groups import best_of
from doorward.audits.parts.transfer import ease_test, transferred
from doorward.cleansers.parts.carried import Carrier
from doorward.cleansers.parts.stamping import stamped, success, tried_on
from doorward.cleansers.results import Cleansing
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.order_test import FEWEST_CLASSES, OrderTest, combine, order_test, several
from doorward.core.triggers import Trigger
from doorward.inversion.results import Inversion

CLUSTERS, CONTRADICTION, TRANSFER, INVERSION = "clusters", "contradiction", "transfer", "inversion"
_SMALLEST = 0.01  # added to a share of contradicting images before the logarithm, or one image where that is more
_SPREAD = 0.4  # of its logarithm between clean classes, at least
PLAIN = 0.5  # success on the suspect model with which a class is looked into, however many there are
WORKS = 0.1  # success on the suspect model from which a trigger is one
WORKS_WELL = 0.25  # the same of a group's: what a clean kind of its own has in common reaches 0.2


@dataclass(frozen=True, eq=False)
class Evidence:
    """Tests by kind; their sum; the transferred triggers with their success on the suspect model."""

    tests: Mapping[str, OrderTest]
    triggers: Mapping[int, Trigger]
    rates: Mapping[int, float]

    @property
    def together(self) -> OrderTest | None:
        """All kinds as one test; None without any."""
        return combine(list(self.tests.values())) if self.tests else None

    def of(self, label: int) -> dict[str, float | None]:
        """A class's p-values by kind."""
        return {kind: float(test.classes[label]) for kind, test in self.tests.items()}


def gather(
    images: ImageSet,
    model: Classifier,
    found: Contradictions,
    cleansing: Cleansing | None,
    inversion: Inversion | None,
    carried: Sequence[Carrier],
    seed: int,
) -> Evidence:
    """Every kind of evidence that there is, as tests of each class against the others.

    Clusters: what the cleansers say. Contradiction: share of a class's images that contradict their label, on a
    logarithmic scale, where they were looked for. Transfer: success of what a class's suspects, or a group of it, have
    in common, stamped on images of other classes. Inversion: `doorward.inversion.verdict`. With fewer than four classes
    there is nothing to compare.
    """
    classes = len(images.classes)
    triggers: dict[int, Trigger] = dict(transferred(images, found.suspects, found.decisions))
    rates = {
        label: success(model.predict, stamped(tried_on(images, label, found.suspects, seed), trigger, seed), label)
        for label, trigger in triggers.items()
    }
    for label, one in best_of(carried).items():
        if one.success > rates.get(label, 0.0):
            triggers[label], rates[label] = one.trigger, one.success
    tests: dict[str, OrderTest] = {}
    if cleansing is not None and (clusters := _clusters(cleansing, classes)) is not None:
        tests[CLUSTERS] = clusters
    present = images.counts() > 0
    if present.sum() >= FEWEST_CLASSES:
        if found.looked:
            tests[CONTRADICTION] = order_test(contradicting(found.suspects, images.labels, classes), least=_SPREAD)
        tests[TRANSFER] = ease_test(rates, present)
    if inversion is not None and (inverted := _inverted(inversion)) is not None:
        tests[INVERSION] = inverted
    return Evidence(tests, triggers, rates)


def contradicting(suspects: NDArray[np.bool_], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Logarithm of how many images of every class contradict, over as many as do in the whole set; NaN without images.

    Both counts have 1 % of the class added, or one image where that is more: in a class of ten a single hard image is
    no finding.
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    found = np.bincount(labels[suspects], minlength=classes)
    extra = np.maximum(1.0, _SMALLEST * counts)
    ratio = (found + extra) / (counts * float(suspects.mean()) + extra)
    return np.where(counts > 0, np.log(ratio), np.nan)


def _clusters(cleansing: Cleansing, classes: int) -> OrderTest | None:
    """The cleansers' p-values, corrected for their number, without transfer, which is a kind of its own; or None."""
    methods = cleansing.facts.methods.items()
    decided = [m for name, m in methods if name != TRANSFER and m.p_value is not None and m.class_p_values]
    if not decided:
        return None
    every = np.array([[1.0 if p is None else p for p in m.class_p_values] for m in decided])
    least = np.array([several(p, len(decided)) for p in every.min(axis=0).tolist()])
    whole = several(min(float(m.p_value) for m in decided if m.p_value is not None), len(decided))
    return OrderTest(min(whole, float(least.min())), least)


def _inverted(inversion: Inversion) -> OrderTest | None:
    """An inversion's p-values; None where it is undecided."""
    if inversion.p_value is None:
        return None
    values: NDArray[np.float64] = np.nan_to_num(inversion.class_p_values, nan=1.0)
    return OrderTest(float(inversion.p_value), values)


def candidates(evidence: Evidence, suspects: Sequence[int], most: int, believed: float) -> list[int]:
    """The classes to look into, most suspicious first.

    Args:
        suspects: how many every class has.
        most: classes at most, and as many as have a transferred trigger that works on half of all pictures.
        believed: p-value up to which a class is looked into; those whose transferred trigger works well are so or so.
    """
    together = evidence.together
    if together is None:
        return [k for k in np.argsort(-np.array(suspects), kind="stable").tolist() if suspects[k]][:most]
    plain = [k for k, rate in evidence.rates.items() if rate >= PLAIN]
    most = max(most, len(plain))
    order = sorted(
        range(len(suspects)), key=lambda k: (k not in plain, float(together.classes[k]), -evidence.rates.get(k, 0.0))
    )
    return [k for k in order if together.classes[k] <= believed or evidence.rates.get(k, 0.0) >= WORKS_WELL][:most]
