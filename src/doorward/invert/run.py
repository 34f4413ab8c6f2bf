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

DEFAULT_METHODS = ("mask", "margin")
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
        seed: of everything random.
        folder: where a method in progress keeps its state, so that the same call goes on from there.
        progress: called with (method, steps done, steps in all, classes or pairs left).

    Raises:
        DoorwardError: images that do not fit the classifier, or too few; weights or logits that are not finite.
    """
    known, chosen = dict(knowledge or {}), [registry.get("invert", name) for name in dict.fromkeys(methods)]
    configured = {m.name: m.configure((settings or {}).get(m.name)) for m in chosen}
    _check(chosen, configured, settings or {}, known, len(classifier.classes), level, held_out)
    search, test = None, None
    if images is not None:
        images = _prepared(classifier, images, labelled)
        search, test = _split(images, held_out, seed)
    models: dict[str, Frozen] = {}
    outcomes = {}
    for method in chosen:
        if search is None and "scene" in method.given:
            raise DoorwardError(f"invert {method.name}: needs clean images, which were not given")
        s = configured[method.name]
        precision = str(getattr(s, "precision", "auto"))
        model = models.setdefault(precision, Frozen(classifier, precision))
        watch = Watch(
            partial(progress, method.name) if progress else None,
            folder / f"{method.name}-checkpoint.safetensors" if folder else None,
        )
        available: dict[str, Any] = {"model": model, "seed": seed, "watch": watch}
        if search is not None and "scene" in method.given:
            labels = torch.from_numpy(search.labels).to(model.device)
            available["scene"] = Scene(model, to_float(search.pixels, model.device).permute(0, 2, 3, 1), labels)
        outcomes[method.name] = _run(method, s, available, known, classifier, test, seed)
        if watch.checkpoint is not None:
            watch.checkpoint.unlink(missing_ok=True)
    return _decide(classifier, outcomes, level)


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


def _split(images: ImageSet, held_out: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Images to make triggers on and images to measure them on: the same ones when there are few."""
    if held_out == 0 or len(images) < 40:
        return images, images
    order = np.random.default_rng(seed).permutation(len(images))
    count = round(held_out * len(images))
    return images.subset(np.sort(order[count:])), images.subset(np.sort(order[:count]))


def _run(
    method: Method,
    s: Settings,
    available: dict[str, Any],
    known: dict[str, Any],
    classifier: Classifier,
    test: ImageSet | None,
    seed: int,
) -> Outcome:
    """Hand a method exactly what it declared; test its statistic; measure its triggers."""
    used = {k: v for k, v in known.items() if k in method.given | method.accepts}
    started = time.monotonic()
    inverted: Inverted = method.function(**{k: available[k] for k in method.given - KNOWLEDGE}, **used, s=s)
    seconds = time.monotonic() - started
    verdict, why = _test(inverted)
    rates: dict[int, Rate] = {}
    if test is not None:
        ranked = sorted(inverted.triggers, key=lambda k: -inverted.statistic[k])
        for label in ranked[:_MEASURED_CLASSES]:
            stamp: Stamp = inverted.distributions.get(label, inverted.triggers[label][0])
            source = inverted.details.get("source")
            only = None if source is None else (int(source[label]),)
            rates[label] = success(classifier, test.pixels, test.labels, stamp, label, sources=only, seed=seed)
    return Outcome(method, s, tuple(sorted(used)), inverted, verdict, why, rates, seconds)


def _test(inverted: Inverted) -> tuple[OrderTest | None, str]:
    """The order-statistics test, or why there is none. Classes whose triggers do not work can be no target."""
    looked_at, count = np.isfinite(inverted.statistic), len(inverted.statistic)
    compared = inverted.ran_out & looked_at
    if not looked_at.all():
        return None, f"looked at {int(looked_at.sum())} of {count} classes; all are needed to tell what is unusual"
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
