"""Step 3 of the moving window: the complete trigger, searched where the heat map is hot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.core.triggers import Trigger
from doorward.inversion.methods.window.heatmap import HeatMap
from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors, Watch, optimise
from doorward.inversion.search.pictures import enlarged, squash
from doorward.inversion.search.scene import Scene
from doorward.inversion.search.scores import class_margin, scored
from doorward.inversion.search.stamping import blend_whole

_FIRST_ALPHA = 1.0  # of the free numbers: 88 % opaque in the region
_MEASURED = 128  # images on which a trigger's success is taken
_PASS = 512


class CompleteSettings(LoopSettings):
    """Settings of the search for the complete trigger."""

    steps: int = Field(60, ge=1, description="optimiser steps")
    batch: int = Field(24, ge=1, description="images per class and step")
    halve_from: int = Field(1 << 30, ge=2, description="never: regions of a class are compared at the end")
    levels: tuple[float, ...] = Field(
        (0.4, 0.2), min_length=1, description="heat from which a pixel is in the region, of the hottest; all tried"
    )
    success: float = Field(0.9, gt=0, le=1, description="the smallest region whose trigger reaches this is taken")
    keep: float = Field(0.5, ge=0, description="size: a pixel stays that adds this share of what pixels add on average")
    smooth: float = Field(0.2, ge=0, description="price of an edge of alpha or pattern, in pixels of size")
    grain: int = Field(2, ge=1, description="alpha and pattern vary over so many pixels")
    lr: float = Field(0.1, gt=0, description="learning rate of Adam on alpha and pattern")


@dataclass(frozen=True, eq=False)
class Complete:
    """A complete trigger: its success on the images of the search, the heat level of its region, other levels' too."""

    trigger: Trigger
    success: float
    level: float
    tried: dict[str, float]

    @property
    def size(self) -> float:
        """L1 norm of alpha, in pixels."""
        return float(self.trigger.alpha.sum())


class CompleteObjective(Objective):
    """Minus the class's margin, plus the price of alpha's mass and of the edges of alpha and pattern.

    The margin and not the cross-entropy, which is content with a few pixels of the trigger. The price of a pixel is
    ``keep`` times what the trigger's pixels add to the margin on average, so that it fits any net's scale.
    """

    def __init__(self, scene: Scene, s: CompleteSettings) -> None:
        self.scene, self.s, self.images = scene, s, scene.normalised
        with torch.no_grad():
            self.clean = torch.cat([scene.model.logits(part) for part in self.images.split(_PASS)])

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        """Images, the same for all lanes."""
        return {"rows": self.scene.draw(len(lanes), batch, generator)}

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """Loss per lane; alpha is nothing outside the region. Images of the class itself do not count."""
        rows, label = drawn["rows"][0], lanes.held["label"]
        alpha, pattern = pictures(lanes)
        stamped = blend_whole(self.images[rows][None], alpha, self.scene.model.normalise(pattern))
        margins = class_margin(self.scene.model.logits(stamped), label)
        before = class_margin(self.clean[rows][None].expand(len(label), -1, -1), label)
        counts = (self.scene.labels[rows] != label[:, None]).float()
        trials, size = counts.sum(1).clamp(min=1), alpha.sum((1, 2, 3))
        gain = (((margins - before) * counts).sum(1) / trials).detach().clamp(min=0)
        price = self.s.keep * gain / size.detach().clamp(min=1)
        area = size + self.s.smooth * (edges(alpha) + edges(alpha * pattern) / pattern.shape[3])
        return price * area - (margins * counts).sum(1) / trials, {}

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Adam as the mask inversion has it."""
        return torch.optim.Adam(trained, lr=self.s.lr, betas=(0.5, 0.9))


def pictures(lanes: Lanes) -> tuple[Tensor, Tensor]:
    """Alpha and pattern in [0, 1], ``[lanes, H, W, 1 or C]``; alpha is nothing outside the region."""
    height, width = lanes.held["region"].shape[1:3]
    alpha, pattern = (enlarged(squash(lanes.trained[k]), (height, width)) for k in ("alpha", "pattern"))
    return alpha * lanes.held["region"], pattern


def edges(pictures: Tensor) -> Tensor:
    """Total variation of ``[lanes, H, W, C]``: the sum of absolute differences of neighbours, ``[lanes]``."""
    down, right = pictures.diff(dim=1).abs(), pictures.diff(dim=2).abs()
    return down.sum((1, 2, 3)) + right.sum((1, 2, 3))


def complete_triggers(
    scene: Scene, maps: dict[int, HeatMap], s: CompleteSettings, *, seed: int, watch: Watch | None = None
) -> tuple[dict[int, Complete], int]:
    """Search pattern and transparency in the hot region of every class, at several heat levels in one batch.

    Qiao, Yang and Li 2019, "Experimental results: Step3": the heat map says where and how large. What the slides leave
    open is how hot a pixel must be: the smallest region whose trigger reaches ``s.success`` is taken, else the region
    whose trigger reaches most.

    Returns: a trigger per class, an RGBA picture of the image's size, and how many image passes they cost.
    """
    channels, height, width = scene.model.shape
    jobs = [(label, level) for label in maps for level in sorted(s.levels, reverse=True)]
    regions = np.stack([maps[label].region(level) for label, level in jobs])
    device, count = scene.pixels.device, len(jobs)
    cells = tuple((side + s.grain - 1) // s.grain for side in (height, width))
    trained = {
        "alpha": torch.full((count, *cells, 1), _FIRST_ALPHA, device=device),
        "pattern": torch.zeros(count, *cells, channels, device=device),
    }
    held = {
        "label": torch.tensor([label for label, _ in jobs], device=device),
        "region": torch.from_numpy(regions).to(device).float()[..., None],
    }
    lanes = optimise(CompleteObjective(scene, s), Lanes(trained, held), s, seed=seed, watch=watch)
    alpha, pattern = pictures(lanes)
    reached, measured = _success(scene, alpha, pattern, lanes.held["label"])
    found: dict[int, Complete] = {}
    for label in maps:
        mine = [i for i, (of, _) in enumerate(jobs) if of == label]
        working = [i for i in mine if reached[i] >= s.success]
        best = working[0] if working else max(mine, key=lambda i: reached[i])
        colour, opacity = (v[best].permute(2, 0, 1).cpu().contiguous() for v in (pattern, alpha))
        tried = {f"{jobs[i][1]:g}": float(reached[i]) for i in mine}
        found[label] = Complete(Trigger(colour, opacity), float(reached[best]), jobs[best][1], tried)
    return found, int(lanes.held["steps"].sum()) * s.batch + len(scene.pixels) + measured


@torch.no_grad()
def _success(scene: Scene, alpha: Tensor, pattern: Tensor, label: Tensor) -> tuple[NDArray[np.float64], int]:
    """Share of images of other classes that every lane's trigger sends to its class, and the passes that took."""
    rows = torch.arange(min(_MEASURED, len(scene.pixels)), device=alpha.device)
    images, pattern = scene.normalised[rows][None], scene.model.normalise(pattern)
    reached, together = [], max(1, _PASS // len(rows))
    for start in range(0, len(alpha), together):
        part = slice(start, start + together)
        stamped = blend_whole(images, alpha[part], pattern[part])
        _, hits, counts = scored(scene, scene.model.logits(stamped), label[part], rows)
        reached.append(hits.sum(1) / counts.sum(1).clamp(min=1))
    return torch.cat(reached).double().cpu().numpy(), len(alpha) * len(rows)
