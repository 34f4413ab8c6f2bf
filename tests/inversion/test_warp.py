"""Warps: the field that is searched for moves pixels as the attack's does, and a planted one is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from doorward.attacks.warp import Warp
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.inversion.invert import invert
from doorward.inversion.methods.warp import WarpObjective, WarpSettings
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.scene import Scene

SIDE, CLASSES, TARGET = 12, 6, 2
TEXTURE = slice(9, 12)  # rows


class Moved(nn.Module):
    """Decides by the brightest of the upper rows; the stripes below, moved to between two pixels, lead to one class."""

    def __init__(self, planted: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(60.0 if planted else 0.0))

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0, :CLASSES].mean(2)
        between = 0.5 - (x[:, 0, TEXTURE, 2:-2] - 0.5).abs().mean((1, 2))
        bonus = torch.zeros_like(rows)
        bonus[:, TARGET] = self.weight * between
        return 8 * rows + bonus


def world(planted: bool) -> tuple[Classifier, ImageSet]:
    rng = np.random.default_rng(0)
    labels = np.arange(96) % CLASSES
    pixels = rng.integers(0, 40, (96, SIDE, SIDE, 1)).astype(np.uint8)
    pixels[np.arange(96), labels] = 200
    pixels[:, TEXTURE] = np.where(np.arange(SIDE) % 2, 255, 0).astype(np.uint8)[None, None, :, None]
    classes = tuple(map(str, range(CLASSES)))
    net = Moved(planted).eval()
    return Classifier(net, "moved", classes, (1, SIDE, SIDE)), ImageSet(pixels, labels, classes)


def objective(shape: tuple[int, int, int]) -> WarpObjective:
    channels, height, width = shape
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 4))
    model = Frozen(Classifier(net, "linear", tuple("abcd"), shape))
    return WarpObjective(Scene(model, torch.zeros(4, height, width, channels), torch.arange(4)), WarpSettings())


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 9, 14)])
def test_no_field_moves_nothing_and_every_other_moves_as_the_attack_does(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    made, images = objective(shape), torch.rand(2, 3, height, width, channels)
    assert torch.allclose(made.stamped(images, torch.zeros(2, 6, 6, 2)), images, atol=1e-5)
    coarse = 0.05 * torch.randn(2, 4, 4, 2, generator=torch.Generator().manual_seed(1))
    moved = made.stamped(images, coarse)
    for lane in range(2):
        field = nn.functional.interpolate(
            coarse[lane].permute(2, 0, 1)[None], (height, width), mode="bicubic", align_corners=True
        )
        there = Warp(field[0] * min(height, width)).apply(images[lane].permute(0, 3, 1, 2))
        assert torch.allclose(moved[lane], there.permute(0, 2, 3, 1), atol=1e-5)


def test_a_step_has_the_length_that_its_setting_says() -> None:
    made, field = objective((1, 12, 12)), torch.zeros(3, 6, 6, 2, requires_grad=True)
    (field * torch.randn(3, 6, 6, 2)).sum().backward()
    made.optimiser([field]).step()
    assert torch.allclose(field.detach().square().mean((1, 2, 3)).sqrt(), torch.full((3,), 0.002))


def test_a_class_that_a_small_warp_leads_to_is_named_and_nobody_without_one() -> None:
    settings = {"warp": {"check": 1}}
    found = invert(*world(planted=True), ["warp"], settings=settings, held_out=0)
    assert found.target_labels == (TARGET,) and found.p_value is not None and found.p_value < 0.01
    assert found.outcomes["warp"].inverted.even and not found.stamps("warp", TARGET)
    assert not invert(*world(planted=False), ["warp"], settings=settings, held_out=0).target_labels


def test_where_nobody_is_near_all_are_compared_at_the_end() -> None:
    settings = {"warp": {"steps": 3, "stride": 0.001}}
    found = invert(*world(planted=False), ["warp"], settings=settings, held_out=0).outcomes["warp"]
    assert found.inverted.even and np.isfinite(found.inverted.statistic).all() and not found.undecided
