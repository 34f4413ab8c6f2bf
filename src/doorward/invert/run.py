"""The verb: one look at the classifier, every method on it, one verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from doorward import methods as registry
from doorward.classifiers import Classifier, to_float
from doorward.errors import DoorwardError
from doorward.images import ImageSet
from doorward.invert.frozen import Frozen
from doorward.invert.loop import Watch
from doorward.invert.measure import success
from doorward.invert.result import Inverted
from doorward.invert.scene import Scene
from doorward.invert.verdict import FEWEST_CLASSES, OrderTest, order_test
from doorward.methods import KNOWLEDGE, Method, Settings
from doorward.stats import Rate
from doorward.triggers import Stamp

DEFAULT_METHODS = ("mask", "universal")
FEWEST_IMAGES = 10
_MEASURED_CLASSES = 32  # of more classes, the most suspicious have their triggers measured

Decision = Literal["backdoor", "nothing found", "undecided"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One method's result, its test over the classes, and the success of its triggers on unseen images.

    ``test`` is None, and ``undecided`` says why, when the method allows no verdict.
    """

    method: Method
    settings: Settings
    knowledge: tuple[str, ...]
    inverted: Inverted
    test: OrderTest | None
    undecided: str
    success: dict[int, Rate]
    seconds: float


@dataclass(frozen=True, eq=False)
class Inversion:
    """What `invert` gives.

    Args:
        decision: ``backdoor`` when a class stands out at ``level``; ``undecided`` when no method allows a verdict.
        p_value: of the model, corrected for the number of methods; None when undecided.
        classes: p-value per class ``[K]``, corrected for classes and methods; NaN when undecided.
        targets: classes at or below ``level``, most suspicious first.
    """

    classifier: Classifier
    outcomes: dict[str, Outcome]
    decision: Decision
    p_value: float | None
    classes: NDArray[np.float64]
    targets: tuple[int, ...]
    level: float


def invert(
    classifier: Classifier,
    images: ImageSet | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    labelled: bool = True,
    held_out: float = 0.3,
    settings: dict[str, dict[str, Any]] | None = None,
    knowledge: dict[str, Any] | None = None,
    level: float = 0.05,
    prescreen: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    progress: Callable[[str, int, int, int], None] | None = None,
) -> Inversion:
    """Look for a backdoor in a classifier: for each class, triggers that lead to it, and one verdict.

    Args:
        classifier: the net under suspicion; left as it was.
        images: clean images; None when all methods do without (``margin``).
        methods: names of registered inversions.
        labelled: False to use the classifier's own decisions for labels.
        held_out: share of the images on which triggers are measured and not made; none of fewer than 40 images.
        settings: per method.
        knowledge: what an auditor does not have in practice and the caller declares to know (``target_class``).
        level: the verdict's chance of a false alarm on a clean classifier.
        prescreen: invert only so many classes, those of the largest margin (see `margin`); 0 for all.
        seed: of everything random.
        folder: where a method in progress keeps its state, so that the same call goes on from there.
        progress: called with (method, steps done, steps in all, classes or pairs left).

    Raises:
        DoorwardError: images that do not fit the classifier, or too few; weights or logits that are not finite.
    """
    known, chosen = dict(knowledge or {}), [registry.get("invert", name) for name in dict.fromkeys(methods)]
    configured = {m.name: m.configure((settings or {}).get(m.name)) for m in chosen}
    _check(chosen, configured, settings or {}, known, len(classifier.classes), level, held_out)
    if prescreen and not FEWEST_CLASSES <= prescreen <= len(classifier.classes):
        told = f"expected {FEWEST_CLASSES} to {len(classifier.classes)} classes, or 0 for all"
        raise DoorwardError(f"invert: prescreen {prescreen}; {told}")
    bench = _Bench(classifier, seed, folder, progress)
    if images is not None:
        bench.split(_prepared(classifier, images, labelled), held_out)
    outcomes: dict[str, Outcome] = {}
    candidates: tuple[int, ...] = ()
    if prescreen:
        outcomes["margin"] = bench.run(registry.get("invert", "margin"), configured.get("margin"), known, ())
        ranked = np.argsort(-outcomes["margin"].inverted.statistic, kind="stable")
        candidates = tuple(sorted(int(k) for k in ranked[:prescreen]))
    for method in chosen:
        if method.name not in outcomes:
            outcomes[method.name] = bench.run(method, configured[method.name], known, candidates)
    bench.clear()
    return _decide(classifier, {m.name: outcomes[m.name] for m in chosen}, level)


class _Bench:
    """What every method of one call shares: frozen nets, images to make triggers on and to measure them on."""

    def __init__(
        self,
        classifier: Classifier,
        seed: int,
        folder: Path | None,
        progress: Callable[[str, int, int, int], None] | None,
    ) -> None:
        self.classifier, self.seed, self.folder, self.progress = classifier, seed, folder, progress
        self.search: ImageSet | None = None
        self.test: ImageSet | None = None
        self.models: dict[str, Frozen] = {}

    def split(self, images: ImageSet, held_out: float) -> None:
        """Images to make triggers on and images to measure them on: the same ones when there are few."""
        self.search = self.test = images
        if held_out > 0 and len(images) >= 40:
            order = np.random.default_rng(self.seed).permutation(len(images))
            count = round(held_out * len(images))
            self.search, self.test = images.subset(np.sort(order[count:])), images.subset(np.sort(order[:count]))

    def run(self, method: Method, s: Settings | None, known: dict[str, Any], candidates: tuple[int, ...]) -> Outcome:
        """Hand a method exactly what it declared; test its statistic; measure its triggers."""
        s = s or method.configure()
        precision = str(getattr(s, "precision", "auto"))
        if precision not in self.models:
            self.models[precision] = Frozen(self.classifier, precision)
        model = self.models[precision]
        watch = Watch(partial(self.progress, method.name) if self.progress else None, self._checkpoint(method.name))
        available: dict[str, Any] = {"model": model, "seed": self.seed, "watch": watch}
        if "scene" in method.given:
            if self.search is None:
                raise DoorwardError(f"invert {method.name}: needs clean images, which were not given")
            pixels = to_float(self.search.pixels, model.device).permute(0, 2, 3, 1)
            labels = torch.from_numpy(self.search.labels).to(model.device)
            available["scene"] = Scene(model, pixels, labels, candidates)
        used = {k: v for k, v in known.items() if k in method.given | method.accepts}
        started = time.monotonic()
        inverted: Inverted = method.function(**{k: available[k] for k in method.given - KNOWLEDGE}, **used, s=s)
        seconds = time.monotonic() - started
        verdict, why = judge(inverted)
        return Outcome(method, s, tuple(sorted(used)), inverted, verdict, why, self._measure(inverted), seconds)

    def _measure(self, inverted: Inverted) -> dict[int, Rate]:
        if self.test is None:
            return {}
        rates: dict[int, Rate] = {}
        source = inverted.details.get("source")
        for label in sorted(inverted.triggers, key=lambda k: -inverted.statistic[k])[:_MEASURED_CLASSES]:
            stamp: Stamp = inverted.distributions.get(label, inverted.triggers[label][0])
            only = None if source is None else (int(source[label]),)
            pixels, labels = self.test.pixels, self.test.labels
            rates[label] = success(self.classifier, pixels, labels, stamp, label, sources=only, seed=self.seed)
        return rates

    def _checkpoint(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-checkpoint.safetensors"

    def clear(self) -> None:
        """Remove the states of finished methods; they were kept so that a killed call repeats none of them."""
        if self.folder is not None:
            for path in self.folder.glob("*-checkpoint.safetensors"):
                path.unlink()


def _check(
    chosen: Sequence[Method],
    configured: dict[str, Settings],
    settings: dict[str, dict[str, Any]],
    known: dict[str, Any],
    classes: int,
    level: float,
    held_out: float,
) -> None:
    if not chosen:
        raise DoorwardError("invert: no methods; expected at least one")
    for name in set(settings) - set(configured):
        raise DoorwardError(f"invert: settings for {name!r}, which does not run; methods: {', '.join(configured)}")
    for name, value in known.items():
        if name not in KNOWLEDGE:
            raise DoorwardError(f"invert: knowledge {name!r}; expected one of {', '.join(sorted(KNOWLEDGE))}")
        if name == "target_class" and not (isinstance(value, int) and 0 <= value < classes):
            raise DoorwardError(f"invert: target_class {value}; expected one of 0..{classes - 1}")
    for method in chosen:
        missing = sorted((method.given & KNOWLEDGE) - set(known))
        if missing:
            raise DoorwardError(f"invert {method.name}: needs {missing[0]}, which was not given")
    if not 0 < level < 1:
        raise DoorwardError(f"invert: level {level}; expected a number between 0 and 1")
    if not 0 <= held_out < 1:
        raise DoorwardError(f"invert: held_out {held_out}; expected a share from 0 to below 1")


def _prepared(classifier: Classifier, images: ImageSet, labelled: bool) -> ImageSet:
    """The images, checked to fit, with the classifier's decisions for labels when they have none."""
    if images.shape != classifier.shape:
        found, expected = ("x".join(map(str, s)) for s in (images.shape, classifier.shape))
        raise DoorwardError(f"{images.name}: images of {found}; the classifier takes {expected}")
    if len(images) < FEWEST_IMAGES:
        raise DoorwardError(f"{images.name}: {len(images)} images; expected at least {FEWEST_IMAGES}")
    if labelled and len(images.classes) != len(classifier.classes):
        found, expected = str(len(images.classes)), str(len(classifier.classes))
        raise DoorwardError(
            f"{images.name}: {found} classes, the classifier has {expected}; expected the same, or unlabelled images"
        )
    if labelled:
        return images
    decided = classifier.predict(images.pixels)
    return ImageSet(images.pixels, decided, classifier.classes, images.name)


def judge(inverted: Inverted) -> tuple[OrderTest | None, str]:
    """The order-statistics test, or why there is none. Classes whose triggers do not work can be no target."""
    compared = inverted.ran_out & np.isfinite(inverted.statistic)
    if int(compared.sum()) < FEWEST_CLASSES:
        return None, f"{int(compared.sum())} classes to compare; expected at least {FEWEST_CLASSES}"
    if 2 * int(inverted.converged[compared].sum()) < int(compared.sum()):
        found = f"{int(inverted.converged[compared].sum())} of {int(compared.sum())} classes"
        return None, f"did not converge: {found} came to a result"
    if np.ptp(inverted.statistic[compared]) == 0:
        return None, "the statistic is the same for every class"
    tested = order_test(inverted.statistic, compared=compared)
    return OrderTest(tested.p_value, np.where(inverted.works, tested.classes, 1.0)), ""


def _decide(classifier: Classifier, outcomes: dict[str, Outcome], level: float) -> Inversion:
    """Combine the methods: the smallest p-value times their number (Bonferroni)."""
    tests = [o.test for o in outcomes.values() if o.test is not None]
    if not tests:
        return Inversion(classifier, outcomes, "undecided", None, np.full(len(classifier.classes), np.nan), (), level)
    p_value = min(1.0, len(tests) * min(t.p_value for t in tests))
    classes = np.minimum(1.0, len(tests) * np.min([t.classes for t in tests], axis=0))
    targets = tuple(int(k) for k in np.argsort(classes, kind="stable") if classes[k] <= level)
    return Inversion(classifier, outcomes, "backdoor" if targets else "nothing found", p_value, classes, targets, level)
