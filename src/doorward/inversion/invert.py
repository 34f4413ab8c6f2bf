"""The verb: one look at the classifier, every method on it, one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doorward.core import methods as registry
from doorward.core.arguments import check_images, check_model
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings
from doorward.core.order_test import FEWEST_CLASSES
from doorward.core.progress import Progress
from doorward.inversion.results import Inversion
from doorward.inversion.search.runner import Bench, Outcome
from doorward.inversion.summary import summarise
from doorward.models.open.matching import decided

DEFAULT_METHODS = ("mask", "universal")
FEWEST_IMAGES = 10


def invert(
    model: Classifier,
    images: ImageSet | None = None,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    *,
    labelled: bool = True,
    held_out: float = 0.3,
    settings: dict[str, dict[str, Any]] | None = None,
    knowledge: dict[str, Any] | None = None,
    references: Sequence[Classifier] = (),
    level: float = 0.05,
    prescreen: int = 0,
    exclude: Sequence[int] = (),
    seed: int = 0,
    folder: Path | str | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Look for a backdoor in a classifier: for each class, triggers that lead to it, and one verdict.

    Args:
        model: the classifier under suspicion; left as it was.
        images: clean images; None when all methods do without (``margin``).
        methods: names of registered inversions.
        labelled: False to use the classifier's own decisions for labels.
        held_out: share of the images on which triggers are measured and not made; none of fewer than 40 images.
        settings: per method.
        knowledge: what an auditor does not have in practice and the caller declares to know (``target_class``, by
            name or number).
        references: clean classifiers for the same classes and image size, of any architecture. Some classes are
            easier to reach than others for any net; what the references show of that is subtracted, which makes
            p-values exact where they were cautious and backdoors stand out further. Two or three are enough.
        level: the verdict's chance of a false alarm on a clean classifier.
        prescreen: invert only so many classes, those of the largest margin (see `margin`); 0 for all.
        exclude: classes that are left out and can be no target, such as targets that are known (`invert_repeatedly`).
        seed: of everything random.
        folder: where a method in progress keeps its state, so that the same call goes on from there.
        progress: called with (method, steps done, steps in all), and how many classes or pairs are left.

    Returns:
        what every method found, a trigger per class among it, and one verdict (`doorward.inversion.verdict`).

    Raises:
        DoorwardError: images that do not fit the classifier, or too few; weights or logits that are not finite.
    """
    check_model("invert", model)
    if images is not None:
        check_images("invert", "images", images)
    chosen = [registry.get("invert", name) for name in registry.as_names(methods)]
    configured = {m.name: m.configure((settings or {}).get(m.name)) for m in chosen}
    _check(configured, settings or {}, level, held_out)
    known = registry.check_knowledge("invert", knowledge or {}, chosen, model.classes)
    if prescreen and not FEWEST_CLASSES <= prescreen <= len(model.classes):
        told = f"expected {FEWEST_CLASSES} to {len(model.classes)} classes, or 0 for all"
        raise DoorwardError(f"invert: prescreen {prescreen}; {told}")
    for net in references:
        if (net.shape, len(net.classes)) != (model.shape, len(model.classes)):
            told = f"{'x'.join(map(str, net.shape))}, {len(net.classes)} classes"
            raise DoorwardError(f"reference {net.arch}: {told}; expected the classifier's own image size and classes")
    bench = Bench(model, seed, None if folder is None else Path(folder), progress, frozenset(exclude))
    if images is not None:
        bench.split(_prepared(model, images, labelled), held_out)
    outcomes: dict[str, Outcome] = {}
    candidates = tuple(k for k in range(len(model.classes)) if k not in bench.exclude)
    if prescreen:
        outcomes["margin"] = bench.run(
            registry.get("invert", "margin"), configured.get("margin"), known, (), references
        )
        ranked = np.argsort(-outcomes["margin"].inverted.statistic, kind="stable")  # left-out classes, NaN, last
        candidates = tuple(sorted(int(k) for k in ranked[:prescreen]))
    for method in chosen:
        if method.name not in outcomes:
            outcomes[method.name] = bench.run(method, configured[method.name], known, candidates, references)
    bench.clear()
    return summarise(model, {m.name: outcomes[m.name] for m in chosen}, images, level, seed)


def _check(configured: dict[str, Settings], settings: dict[str, dict[str, Any]], level: float, held_out: float) -> None:
    if not configured:
        raise DoorwardError("invert: no methods; expected at least one")
    for name in set(settings) - set(configured):
        raise DoorwardError(f"invert: settings for {name!r}, which does not run; methods: {', '.join(configured)}")
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
    return decided(images, classifier)
