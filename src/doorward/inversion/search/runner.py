"""One method at a time on the classifier, and on clean references beside it: statistic, test, success of triggers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import KNOWLEDGE, Method, Settings
from doorward.core.order_test import FEWEST_CLASSES, OrderTest, combine, control_test, order_test
from doorward.core.pixels import to_float
from doorward.core.progress import Progress
from doorward.core.stats import Rate
from doorward.core.triggers import Stamp
from doorward.inversion.inverted import Inverted
from doorward.inversion.judge.pairs import shift_test
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.loop import Watch
from doorward.inversion.search.measure import success
from doorward.inversion.search.rest import advice
from doorward.inversion.search.scene import Scene

_MEASURED_CLASSES = 32  # of more classes, the most suspicious have their triggers measured


@dataclass(frozen=True, eq=False)
class Outcome:
    """One method's result, its test over the classes, and the success of its triggers on unseen images.

    Args:
        test: None, and ``undecided`` says why, when the method allows no verdict.
        references: statistic of every reference net per class, ``[R, K]``; None without them.
        seconds: of the method on the classifier itself, references not counted.
        carried: success of the classifier's triggers on the references, all together, by class.
        named: the test of the classes' statistics alone, and ``shift`` whether most classes are near to one other class
            each, of methods that look at pairs; ``test`` is both.
    """

    method: Method
    settings: Settings
    knowledge: tuple[str, ...]
    inverted: Inverted
    test: OrderTest | None
    undecided: str
    references: NDArray[np.float64] | None
    success: dict[int, Rate]
    seconds: float
    named: OrderTest | None = None
    shift: OrderTest | None = None
    carried: Mapping[int, Rate] = field(default_factory=dict)

    @property
    def reference(self) -> NDArray[np.float64] | None:
        """Mean statistic of the references per class, ``[K]``, which the test subtracts; None without them."""
        return None if self.references is None else np.asarray(self.references.mean(axis=0))

    @property
    def compared(self) -> NDArray[np.float64]:
        """The statistic as it is tested, see `Inverted.compared`."""
        return self.inverted.compared(self.reference)


class Bench:
    """What every method of one call shares: images to make triggers on and images to measure them on."""

    def __init__(
        self,
        classifier: Classifier,
        seed: int,
        folder: Path | None,
        progress: Progress | None,
        exclude: frozenset[int] = frozenset(),
    ) -> None:
        self.exclude = exclude
        self.classifier, self.seed, self.folder, self.progress = classifier, seed, folder, progress
        self.search: ImageSet | None = None
        self.test: ImageSet | None = None

    def split(self, images: ImageSet, held_out: float) -> None:
        """Images to make triggers on and images to measure them on: the same ones when there are few."""
        self.search = self.test = images
        if held_out > 0 and len(images) >= 40:
            order = np.random.default_rng(self.seed).permutation(len(images))
            count = round(held_out * len(images))
            self.search, self.test = images.subset(np.sort(order[count:])), images.subset(np.sort(order[:count]))

    def run(
        self,
        method: Method,
        s: Settings | None,
        known: dict[str, Any],
        candidates: tuple[int, ...],
        references: Sequence[Classifier] = (),
    ) -> Outcome:
        """Invert the classifier and its references alike; test the statistic; measure the triggers."""
        s = s or method.configure()
        used = {k: v for k, v in known.items() if k in method.given | method.accepts}
        lighter = getattr(s, "for_reference", None)
        others = [
            self._invert(method, lighter() if lighter else s, used, candidates, net, f"{method.name}-reference-{n}")
            for n, net in enumerate(references, 1)
        ]
        statistics = np.stack([o.statistic for o in others]) if others else None
        reference = None if statistics is None else statistics.mean(axis=0)
        started = time.monotonic()
        inverted = self._invert(method, s, used, candidates, self.classifier, method.name, reference)
        seconds = time.monotonic() - started
        if len({one.even for one in (inverted, *others)}) > 1:  # one race came to a decision, another did not
            return self.run(method, s.model_copy(update={"race": False}), known, candidates, references)
        if others:
            ran_out = np.all([inverted.ran_out, *(o.ran_out for o in others)], axis=0)
            inverted = replace(inverted, ran_out=ran_out)
        steps, usual = (getattr(one, "steps", 0) for one in (s, method.configure()))
        pairs = [o.pairs for o in others if o.pairs is not None]
        told = advice(method.name, steps, usual) if steps else ""
        named, why = judge(inverted, reference, told)
        square = inverted.pairs
        usually = np.mean(pairs, axis=0) if pairs else 0.0
        shift = None if square is None else shift_test(square - usually, natural=not pairs)
        tests = [test for test in (named, shift) if test is not None]
        test = combine(tests) if tests else None  # a shift says something even where no class differs from the others
        why, knowledge = "" if tests else why, tuple(sorted(used))
        own, carried = self._measure(inverted, [self.classifier]), self._measure(inverted, references)
        return Outcome(method, s, knowledge, inverted, test, why, statistics, own, seconds, named, shift, carried)

    def _invert(
        self,
        method: Method,
        s: Settings,
        used: dict[str, Any],
        candidates: tuple[int, ...],
        net: Classifier,
        name: str,
        reference: NDArray[np.float64] | None = None,
    ) -> Inverted:
        """Hand a method exactly what it declared."""
        precision = str(getattr(s, "precision", "auto"))
        model = Frozen(net, precision)

        def told(done: int, steps: int, left: int) -> None:
            if self.progress:
                self.progress(name, done, steps, f"{left} not yet done")

        watch = Watch(told, self._checkpoint(f"{name}-race" if getattr(s, "race", False) else name))
        available: dict[str, Any] = {"model": model, "seed": self.seed, "watch": watch, "reference": reference}
        if "scene" in method.given:
            if self.search is None:
                raise DoorwardError(f"invert {method.name}: needs clean images, which were not given")
            pixels = to_float(self.search.pixels, model.device).permute(0, 2, 3, 1)
            labels = torch.from_numpy(self.search.labels).to(model.device)
            available["scene"] = Scene(model, pixels, labels, candidates)
        found: Inverted = method.function(**{k: available[k] for k in method.given - KNOWLEDGE}, **used, s=s)
        return found.without(self.exclude) if self.exclude else found

    def _measure(self, inverted: Inverted, nets: Sequence[Classifier]) -> dict[int, Rate]:
        """Success of every class's best trigger on held-out images, over all nets."""
        if self.test is None or not nets:
            return {}
        rates: dict[int, Rate] = {}
        source = inverted.details.get("source")
        pixels, labels = self.test.pixels, self.test.labels
        for label in inverted.ranked()[:_MEASURED_CLASSES]:
            stamp: Stamp = inverted.distributions.get(label, inverted.triggers[label][0])
            only = None if source is None else (int(source[label]),)
            found = [success(net, pixels, labels, stamp, label, sources=only, seed=self.seed) for net in nets]
            rates[label] = Rate(sum(r.hits for r in found), sum(r.trials for r in found))
        return rates

    def _checkpoint(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-checkpoint.safetensors"

    def clear(self) -> None:
        """Remove the states of finished methods; they were kept so that a killed call repeats none of them."""
        if self.folder is not None:
            for path in self.folder.glob("*-checkpoint.safetensors"):
                path.unlink()


def judge(
    inverted: Inverted, reference: NDArray[np.float64] | None = None, advice: str = ""
) -> tuple[OrderTest | None, str]:
    """The order-statistics test, or why there is none. Classes whose triggers do not work can be no target.

    Args:
        reference: what the statistic of a clean net is, per class ``[K]``; the difference is tested.
        advice: what to do when the search did not come to rest.
    """
    if inverted.prior:
        return None, "is a prior: it says whom to look at, and no verdict rests on it"
    statistic = inverted.compared(reference)
    compared = np.isfinite(statistic)
    if int(compared.sum()) < FEWEST_CLASSES:
        return None, f"{int(compared.sum())} classes to compare; expected at least {FEWEST_CLASSES}"
    if 2 * int(inverted.converged[compared].sum()) < int(compared.sum()):
        found = f"{int(inverted.converged[compared].sum())} of {int(compared.sum())} classes"
        return None, " ".join(filter(None, (f"the search had not come to rest: {found} came to a result", advice)))
    if np.ptp(statistic[compared]) == 0:
        return None, "the statistic is the same for every class"
    if inverted.controls:
        drawn = int(compared[list(inverted.controls)].sum())
        if drawn < FEWEST_CLASSES:
            return None, f"{drawn} control classes came to a result; expected at least {FEWEST_CLASSES}"
        tested = control_test(statistic, inverted.controls, len(statistic))
    else:
        tested = order_test(statistic)
    return OrderTest(tested.p_value, np.where(inverted.works, tested.classes, 1.0)), ""
