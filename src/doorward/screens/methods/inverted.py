"""Screening with inverted triggers: a found target whose decision goes away with the hot region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, method
from doorward.core.pixels import to_float
from doorward.core.triggers import Trigger
from doorward.screens.base import BATCH, Floats, Pixels, Screen

_LEAST_DROP = 0.5  # an image is never flagged while its class keeps half of its probability


class InvertedSettings(Settings):
    """Settings of screening with inverted triggers."""

    fills: int = Field(8, ge=1, description="clean images whose content is put in the region, one after another")
    alpha: float = Field(0.3, gt=0, le=1, description="the region is where the trigger is at least so opaque")
    grow: int = Field(1, ge=0, description="pixels by which the region is made larger on every side")


@dataclass(frozen=True, eq=False)
class Inverted(Screen):
    """How much of the decided class's probability goes when the trigger's region shows clean images instead.

    Images that are not decided as a target that was found get 0. For the others the region of that target's trigger is
    inpainted with the same region of clean images; a person keeps most of its probability, a stamp takes it along.
    """

    name: ClassVar[str] = "inverted"
    targets: NDArray[np.int64]
    regions: NDArray[np.bool_]
    fills: Pixels

    @torch.inference_mode()
    def scores(self, pixels: Pixels) -> Floats:
        """p(class | image) minus its mean over inpainted images, ``[N]``, in -1 .. 1."""
        device = self.classifier.device
        scores, decided = np.zeros(len(pixels)), self.classifier.predict(pixels)
        fills, together = to_float(self.fills, device), max(1, BATCH // (len(self.fills) + 1))
        for target, region in zip(self.targets, self.regions, strict=True):
            rows = np.flatnonzero(decided == target)
            hole = torch.from_numpy(region).to(device)
            for start in range(0, len(rows), together):
                part = rows[start : start + together]
                scores[part] = self._drop(to_float(pixels[part], device), fills, hole, int(target))
        return scores

    def _drop(self, images: Tensor, fills: Tensor, hole: Tensor, target: int) -> Floats:
        filled = torch.where(hole, fills[None], images[:, None]).flatten(0, 1)
        p = self.classifier.logits(torch.cat([images, filled])).softmax(1)[:, target].double()
        return (p[: len(images)] - p[len(images) :].view(len(images), -1).mean(1)).cpu().numpy()

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Targets, regions, fills."""
        return {"targets": self.targets, "regions": self.regions.astype(np.uint8), "fills": self.fills}

    @classmethod
    def restore(cls, classifier: Classifier, threshold: float, arrays: dict[str, NDArray[np.generic]]) -> Inverted:
        """From what `arrays` gave."""
        regions, fills = arrays["regions"].astype(np.uint8) > 0, arrays["fills"].astype(np.uint8)
        targets, (channels, height, width) = arrays["targets"].astype(np.int64), classifier.shape
        known = targets.ndim == 1 and bool(((targets >= 0) & (targets < len(classifier.classes))).all())
        fit = regions.shape == (len(targets), height, width) and fills.shape[1:] == (height, width, channels)
        if not (known and fit and len(fills)):
            raise ValueError(f"regions {list(regions.shape)} and fills {list(fills.shape)} for {list(targets.shape)}")
        return cls(classifier, threshold, targets, regions, fills)


@method("screen", "inverted", settings=InvertedSettings, given={"model", "making", "triggers"})
def inverted(model: Classifier, making: ImageSet, triggers: Mapping[int, Trigger], s: InvertedSettings) -> Inverted:
    """A stamped image loses its class when an inverted trigger's region shows clean images instead.

    Qiao, Yang and Li, "Defending neural backdoors via generative distribution modeling", NeurIPS 2019, find the
    trigger. To replace the decisive region by clean content is the step of Doan et al. 2020 ("Februus").
    Deviation: the region is that of the inverted trigger and is filled with clean images, on images decided as its
    target alone.

    Args:
        model: the classifier under suspicion, for images ``[C, H, W]``.
        making: clean images whose content is put in the region; the first ``fills`` of them.
        triggers: found by an inversion, by target class; opaque somewhere, at a fixed place.

    Fails when: the target was not found, the region is wrong, or a person is known by what lies in it alone.

    Raises:
        DoorwardError: triggers that move, or that are additive and so have no region.
    """
    _, height, width = model.shape
    regions = [_region(label, trigger, (height, width), s) for label, trigger in triggers.items()]
    fills = np.asarray(making.pixels[: s.fills])
    return Inverted(model, _LEAST_DROP, np.array(list(triggers), np.int64), np.stack(regions), fills)


def _region(label: int, trigger: Trigger, image: tuple[int, int], s: InvertedSettings) -> NDArray[np.bool_]:
    what = f"screen inverted: trigger of class {label}"
    if trigger.blend != "alpha" or trigger.placement.kind != "fixed":
        raise DoorwardError(f"{what} is {trigger.blend}, {trigger.placement.kind}; expected alpha at a fixed place")
    (top, left), (h, w) = (trigger.placement.top, trigger.placement.left), trigger.size
    if top + h > image[0] or left + w > image[1]:
        raise DoorwardError(f"{what} is {h} x {w} at {top}, {left}; expected one that fits {image[0]} x {image[1]}")
    opaque = torch.zeros(1, 1, *image)
    opaque[0, 0, top : top + h, left : left + w] = (trigger.alpha.amax(0) >= s.alpha).float()
    grown = functional.max_pool2d(opaque, 2 * s.grow + 1, stride=1, padding=s.grow)
    if not bool(grown.any()):
        raise DoorwardError(f"{what}: is nowhere {s.alpha:g} opaque; expected a lower setting 'alpha'")
    return np.asarray(grown[0, 0].numpy() > 0)
