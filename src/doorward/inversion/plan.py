"""What an inversion would do, and how long: a few steps of every method are tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import Settings
from doorward.core.plan import Plan, about, at_pace
from doorward.inversion.invert import invert

_FEW, _MORE = 2, 5  # steps that are tried
_IMAGES = 128  # that they are tried on: a step takes as long with more, only triggers are measured on all


def plan_inversion(
    model: Classifier,
    images: ImageSet | None,
    methods: Sequence[str],
    *,
    settings: dict[str, dict[str, Any]],
    references: Sequence[Classifier] = (),
    **options: Any,
) -> Plan:
    """A plan of `invert` with these arguments. Methods end early where they find what they look for."""
    lines, total = list(about(model, images)), 0.0
    unknown, some = False, images
    if images is not None and len(images) > _IMAGES:
        rows = np.random.default_rng(0).permutation(len(images))[:_IMAGES]
        some = images.subset(np.sort(rows))
    for name in methods:
        own = settings.get(name, {})
        configured = registry.get("invert", name).configure(own)
        steps, told = _steps(configured), f"{name}: every class of {len(model.classes)}"
        if steps is None:
            lines.append(told)
            unknown = True
            continue
        lines.append(f"{told}, at most {steps:,} steps of {getattr(configured, 'batch', 1)} images")

        def run(count: int, name: str = name, own: dict[str, Any] = own) -> None:
            few = {name: {**own, "steps": count}}
            invert(model, some, [name], settings=few, references=references, **options)

        total += at_pace(run, min(_FEW, steps), min(_FEW, steps) + _MORE, steps)
    if references:
        lines.append(f"{len(references)} references, which take as long as the model each")
    return Plan(tuple(lines), None if unknown else total, at_most=True)


def _steps(settings: Settings) -> int | None:
    steps = getattr(settings, "steps", None)
    return steps if isinstance(steps, int) else None
