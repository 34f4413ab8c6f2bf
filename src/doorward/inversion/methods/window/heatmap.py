"""Step 2 of the moving window: where in the image a class is easier to reach than classes are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors, Watch, optimise
from doorward.inversion.search.scene import Scene
from doorward.inversion.search.scores import class_margin, scored
from doorward.inversion.search.stamping import stamp_windows

Floats = NDArray[np.float64]
_HALF = 0.5  # of the way from the coldest to the hottest


class HeatSettings(LoopSettings):
    """Settings of moving-window detection."""

    steps: int = Field(15, ge=2, description="optimiser steps per window")
    batch: int = Field(6, ge=1, description="images per window and step")
    halve_from: int = Field(1 << 30, ge=2, description="never: strengths are compared with those of control classes")
    window: int = Field(15, ge=1, description="side of the window in pixels")
    opacity: float = Field(1.0, gt=0, le=1, description="of the whole window")
    controls: int = Field(10, ge=2, description="classes drawn at random that show what any class gains at a place")
    refined: float = Field(0.25, ge=0, le=1, description="share of the coarse positions that are looked at finely")
    lr: float = Field(0.3, gt=0, description="learning rate of Adam on the pattern")


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Strength of windows over the image for one class.

    Args:
        heat: ``[H, W]``, 0 .. 1: how well covering a pixel explains which windows are strong.
        corners: int ``[P, 2]``, row and column of every window's top left corner.
        strength: ``[P]``: the class's margin in that window above the controls' mean, in their standard deviations.
        success: ``[P]``: share of images that the window sent to the class.
    """

    heat: Floats
    corners: NDArray[np.int64]
    strength: Floats
    success: Floats
    window: int

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the hottest spot: the middle of the pixels within 1 % of the maximum."""
        span = float(self.heat.max() - self.heat.min())
        rows, columns = np.nonzero(self.heat >= self.heat.max() - 0.01 * span)
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        return int(rows[nearest]), int(columns[nearest])

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the centre of mass of the half of the heat above the middle level."""
        region = self.region(_HALF)
        hot = np.where(region, self.heat, 0.0) if self.heat.any() else region.astype(np.float64)
        rows, columns = np.indices(hot.shape)
        return float((rows * hot).sum() / hot.sum()), float((columns * hot).sum() / hot.sum())

    def region(self, level: float) -> NDArray[np.bool_]:
        """Pixels whose heat is at least ``level`` of the way from the coldest to the hottest, ``[H, W]``."""
        low, high = float(self.heat.min()), float(self.heat.max())
        return np.asarray(self.heat >= low + level * (high - low) - 1e-12)


@dataclass
class Looks:
    """Windows looked at so far: strength and success of every suspect at every position."""

    corners: NDArray[np.int64]
    strength: Floats
    success: Floats
    passes: int = 0


class WindowObjective(Objective):
    """Cross-entropy to the class under a window at the lane's own place."""

    def __init__(self, scene: Scene, s: HeatSettings) -> None:
        self.scene, self.s, self.images = scene, s, scene.normalised

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        """Images, the same for all lanes."""
        return {"rows": self.scene.draw(len(lanes), batch, generator)}

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """Mean cross-entropy per lane; tells the mean margin of the class and its success."""
        rows = drawn["rows"][0]
        pattern = self.scene.model.normalise(lanes.trained["pattern"])[:, None]
        alpha = None if self.s.opacity == 1 else pattern.new_full((1, 1, 1, 1, 1), self.s.opacity)
        top, left = (lanes.held[k][:, None].expand(-1, len(rows)) for k in ("top", "left"))
        stamped = stamp_windows(self.images[rows][None], pattern, alpha, top, left)
        logits = self.scene.model.logits(stamped)
        each, hits, counts = scored(self.scene, logits, lanes.held["label"], rows)
        trials = counts.sum(1).clamp(min=1)
        margins = class_margin(logits.detach(), lanes.held["label"])
        told = {"margin": (margins * counts).sum(1) / trials, "hits": hits.sum(1) / trials}
        return (each * counts).sum(1) / trials, told

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Adam, whose first steps have the same length for every lane."""
        return torch.optim.Adam(trained, lr=self.s.lr, betas=(0.5, 0.9))

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """Keep what the latest pattern reaches."""
        lanes.held["margin"].copy_(told["margin"])
        lanes.held["hits"].copy_(told["hits"])

    def settle(self, lanes: Lanes) -> None:
        """Pixels stay in [0, 1]."""
        lanes.trained["pattern"].clamp_(0, 1)


def check_window(window: int, shape: tuple[int, int, int], what: str) -> None:
    """Refuse a window that is larger than the image, in one line."""
    _, height, width = shape
    if window > min(height, width):
        raise DoorwardError(
            f"{what}: window of {window} x {window} on images of {height} x {width}; "
            f"expected at most {min(height, width)}"
        )


def grid(height: int, width: int, window: int, stride: int) -> NDArray[np.int64]:
    """Top left corners of windows every ``stride`` pixels, the last ones flush with the border, ``[P, 2]``."""
    axes = []
    for whole in (height, width):
        last = whole - window
        axes.append(np.unique(np.append(np.arange(0, last + 1, stride), last)))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)


def heat_maps(
    scene: Scene, suspects: tuple[int, ...], s: HeatSettings, *, seed: int, watches: tuple[Watch, Watch] | None = None
) -> tuple[dict[int, HeatMap], int]:
    """Moving-window detection: invert every window position for the suspects, coarse to fine, strength into maps.

    Qiao, Yang and Li 2019, "Experimental results: Step2". Windows every half of their side first; then windows every
    quarter around the strongest ones of any suspect. All positions and classes advance in one batch. Strength is told
    against control classes at the same place and on the same images, because at the eyes of a face every person is
    easier to reach than in a corner.

    Returns: a map per suspect, and how many image passes they cost.

    Raises:
        DoorwardError: the window is larger than the image; no other classes for controls.
    """
    check_window(s.window, scene.model.shape, "heat map")
    others = np.setdiff1d(np.arange(scene.model.classes), suspects)
    if len(others) < 2:
        raise DoorwardError(f"heat map: {len(others)} classes beside the suspects; expected at least 2 for comparison")
    controls = np.sort(np.random.default_rng(seed).permutation(others)[: s.controls])
    labels = np.concatenate([np.asarray(suspects), controls])
    first, second = watches or (Watch(), Watch())
    _, height, width = scene.model.shape
    coarse = grid(height, width, s.window, max(1, s.window // 2))
    looks = _look(scene, labels, len(suspects), coarse, s, seed, first)
    fine = _around(coarse, looks.strength.max(axis=0), grid(height, width, s.window, max(1, s.window // 4)), s)
    if len(fine):
        more = _look(scene, labels, len(suspects), fine, s, seed, second)
        looks = Looks(
            np.concatenate([looks.corners, more.corners]),
            np.concatenate([looks.strength, more.strength], axis=1),
            np.concatenate([looks.success, more.success], axis=1),
            looks.passes + more.passes,
        )
    maps = {}
    for row, label in enumerate(suspects):
        heat = accumulate(looks.corners, looks.strength[row], s.window, (height, width))
        maps[label] = HeatMap(heat, looks.corners, looks.strength[row], looks.success[row], s.window)
    return maps, looks.passes


def _look(
    scene: Scene,
    labels: NDArray[np.int64],
    suspects: int,
    corners: NDArray[np.int64],
    s: HeatSettings,
    seed: int,
    w: Watch,
) -> Looks:
    """All classes at all positions, one lane each."""
    device, side = scene.pixels.device, s.window
    label = torch.from_numpy(labels).to(device).repeat_interleave(len(corners))
    place = torch.from_numpy(corners).to(device).repeat(len(labels), 1)
    zeros = torch.zeros(len(label), device=device)
    held = {"label": label, "top": place[:, 0], "left": place[:, 1], "margin": zeros, "hits": zeros.clone()}
    pattern = torch.full((len(label), side, side, scene.model.shape[0]), 0.5, device=device)
    lanes = optimise(WindowObjective(scene, s), Lanes({"pattern": pattern}, held), s, seed=seed, watch=w)
    margin, hits = (lanes.held[k].view(len(labels), -1).double().cpu().numpy() for k in ("margin", "hits"))
    others = margin[suspects:]
    strength = (margin[:suspects] - others.mean(axis=0)) / np.maximum(others.std(axis=0, ddof=1), 1e-6)
    return Looks(corners, strength, hits[:suspects], int(lanes.held["steps"].sum()) * s.batch)


def _around(coarse: NDArray[np.int64], best: Floats, fine: NDArray[np.int64], s: HeatSettings) -> NDArray[np.int64]:
    """Fine positions, not looked at yet, whose nearest coarse one is among the strongest."""
    strong = np.argsort(-best, kind="stable")[: round(s.refined * len(coarse))]
    away = np.abs(fine[:, None] - coarse[None]).max(axis=2)
    return np.asarray(fine[np.isin(away.argmin(axis=1), strong) & (away.min(axis=1) > 0)])


def accumulate(corners: NDArray[np.int64], strength: Floats, window: int, image: tuple[int, int]) -> Floats:
    """Correlation of the windows' strength with their covering a pixel, ``[H, W]``, 0 .. 1; 0 where it is negative.

    Negative strength counts as none; a pixel that all windows cover, or none, tells nothing and gets 0. The mean
    strength of the windows over a pixel would be hottest towards the border, where few windows lie and all of them
    reach into the image: a correlation also asks whether the strong windows elsewhere cover the pixel.
    """
    strong = np.maximum(strength, 0)
    centred = strong - strong.mean()
    total, covers = np.zeros(image), np.zeros(image)
    for (top, left), value in zip(corners, centred, strict=True):
        total[top : top + window, left : left + window] += value
        covers[top : top + window, left : left + window] += 1
    length = float(np.sqrt((centred**2).sum()))
    spread = length * np.sqrt(covers * (1 - covers / len(corners)))
    told = (spread > 0) & (length > 1e-9 * strong.max())  # less is rounding
    return np.clip(np.divide(total, spread, out=np.zeros(image), where=told), 0, 1)
