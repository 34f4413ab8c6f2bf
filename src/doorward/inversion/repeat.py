"""Several triggers and several targets: hide what was found, and look again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.core.progress import Progress
from doorward.core.triggers import Trigger
from doorward.inversion.invert import DEFAULT_METHODS, invert
from doorward.inversion.results import Inversion, RoundRecord, Target
from doorward.inversion.verdict import judge

_OPAQUE = 0.5  # of the largest alpha: from there on a pixel belongs to a trigger's region, faint triggers' too
_LARGEST = 0.5  # of the image may be hidden


@dataclass(frozen=True, eq=False)
class Round:
    """One look: what it gave, and what was hidden from it.

    Args:
        hidden: bool ``[H, W]``, the region that the net could not see.
        excluded: classes that were left out.
    """

    inversion: Inversion
    hidden: NDArray[np.bool_]
    excluded: tuple[int, ...]


class Blindfold(nn.Module):
    """A net that sees the same picture in a region whatever is there.

    Args:
        region: bool ``[H, W]``.
        fill: ``[C, H, W]``, on the net's own scale.
    """

    region: Tensor
    fill: Tensor

    def __init__(self, net: nn.Module, region: Tensor, fill: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("region", region)
        self.register_buffer("fill", fill)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the images with the region filled."""
        return self.net(torch.where(self.region, self.fill.to(x.dtype), x))  # type: ignore[no-any-return]


def blindfolded(classifier: Classifier, region: NDArray[np.bool_], images: ImageSet) -> Classifier:
    """The classifier unable to see the region, which shows the mean of the images instead."""
    if not region.any():
        return classifier
    total = sum(to_float(images.pixels[rows]).double().sum(0) for rows in images.chunks())
    assert isinstance(total, Tensor)
    fill = classifier.normalise((total / len(images)).float()[None].to(classifier.device))[0]
    hole = torch.from_numpy(region).to(classifier.device)
    return replace(classifier, net=Blindfold(classifier.net, hole, fill))


def region_of(trigger: Trigger, image: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Pixels ``[H, W]`` that a trigger covers, and one more on every side; None when it moves or is additive."""
    if trigger.blend != "alpha" or trigger.placement.kind != "fixed":
        return None
    (top, left), (h, w) = (trigger.placement.top, trigger.placement.left), trigger.size
    alpha = trigger.alpha.detach().cpu().amax(0)
    opaque = torch.zeros(1, 1, *image)
    opaque[0, 0, top : top + h, left : left + w] = (alpha >= _OPAQUE * alpha.max().clamp(min=1e-6)).float()
    return np.asarray(functional.max_pool2d(opaque, 3, stride=1, padding=1)[0, 0].numpy() > 0)


def invert_repeatedly(
    model: Classifier,
    images: ImageSet,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    *,
    rounds: int = 3,
    hide: Literal["region", "target"] = "region",
    folder: Path | str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Round]:
    """Invert until nothing significant is left: what one round finds is hidden from the next.

    Args:
        rounds: at most so many.
        hide: ``region``: the net no longer sees where the found triggers lie, so that a second trigger into the same
            class is found too. ``target``: found targets are left out of the classes that are compared. Triggers that
            move, are additive, or cover so much that more than half of the image would be hidden have no region:
            their targets are left out.
        folder: of unfinished states; every round has its own inside.
        options: of `invert`.

    Returns: the rounds, the last one without targets unless ``rounds`` ran out; `joined` makes one result of them.

    A clean classifier ends after the first round unless that gives a false alarm, so that the chance of one over all
    rounds is that of a single call. Later rounds are tests of their own.
    """
    if rounds < 1:
        raise DoorwardError(f"invert: {rounds} rounds; expected 1 or more")
    if hide not in ("region", "target"):
        raise DoorwardError(f"invert: hide {hide!r}; expected region or target")
    hidden, done = np.zeros(model.shape[1:], bool), list[Round]()
    excluded: tuple[int, ...] = ()
    for number in range(1, rounds + 1):
        place = None if folder is None else Path(folder) / f"round-{number}"
        if place is not None:
            place.mkdir(exist_ok=True)
        seeing = blindfolded(model, hidden, images)
        found = invert(seeing, images, methods, exclude=excluded, folder=place, progress=progress, **options)
        done.append(Round(replace(found, classifier=model), hidden, excluded))
        if place is not None and not any(place.iterdir()):
            place.rmdir()
        if not found.targets:
            break
        hidden, excluded = _hide(found, hidden, excluded, hide)
    return done


def joined(rounds: Sequence[Round]) -> Inversion:
    """All rounds as one result: the first one's numbers, the targets of all."""
    first, places = rounds[0].inversion, ["", *(f"round-{number}" for number in range(2, len(rounds) + 1))]
    told = tuple(_about(looked, place) for looked, place in zip(rounds, places, strict=True))
    targets: dict[int, Target] = {}
    for target in (t for r in told for t in r.targets):
        targets.setdefault(target.label, target)
    every = tuple(targets.values())
    undecided = {name: found.undecided for name, found in first.facts.methods.items()}
    judgement, findings = judge(first.p_value, every, undecided)
    update = {"judgement": judgement, "findings": findings, "targets": every, "rounds": told}
    later = tuple(r.inversion for r in rounds[1:])
    return replace(first, facts=first.facts.model_copy(update=update), later=later)


def _about(looked: Round, place: str) -> RoundRecord:
    facts = looked.inversion.facts
    inside = [t.model_copy(update={"file": f"{place}/{t.file}"}) if place and t.file else t for t in facts.targets]
    return RoundRecord(
        verdict=facts.judgement.level,
        p_value=facts.judgement.p_value,
        targets=tuple(inside),
        hidden_pixels=int(looked.hidden.sum()),
        excluded=looked.excluded,
        folder=place,
        methods=facts.methods if place else {},
    )


def _hide(
    found: Inversion, hidden: NDArray[np.bool_], excluded: tuple[int, ...], hide: str
) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    """What the next round must not see."""
    hidden = hidden.copy()
    for label in found.target_labels:
        region = _region(found, label) if hide == "region" else None
        if region is None or (hidden | region).mean() > _LARGEST or not (region & ~hidden).any():
            excluded = (*excluded, label)
        else:
            hidden |= region
    return hidden, excluded


def _region(found: Inversion, label: int) -> NDArray[np.bool_] | None:
    """Where the trigger of the method that is surest of this class lies; None when it has none."""
    assert found.classifier is not None
    _, height, width = found.classifier.shape
    tested = [o for o in found.outcomes.values() if o.test is not None and label in o.inverted.triggers]
    for outcome in sorted(tested, key=lambda o: o.test.classes[label] if o.test else 1.0):
        if label not in outcome.inverted.distributions:
            return region_of(outcome.inverted.triggers[label][0], (height, width))
    return None
