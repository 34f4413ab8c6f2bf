"""The stamp's formula, its places, its gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.core.triggers import Placement, Trigger


def test_alpha_formula_by_hand() -> None:
    # x' = (1 - a) x + a t at the stamped pixel: (1 - .25) * .8 + .25 * .4 = .7; elsewhere nothing changes
    images = torch.full((1, 1, 3, 3), 0.8)
    stamped = Trigger(torch.full((1, 1, 1), 0.4), torch.full((1, 1, 1), 0.25), Placement("fixed", 1, 2)).apply(images)
    expected = images.clone()
    expected[0, 0, 1, 2] = 0.7
    assert torch.allclose(stamped, expected)
    assert torch.equal(images, torch.full((1, 1, 3, 3), 0.8)), "the input must stay as it was"


@pytest.mark.parametrize(
    ("value", "added", "expected"), [(100, 0.25, 164), (240, 0.25, 255), (10, -0.25, 0), (7, 0.0, 7)]
)
def test_additive_form_clips_on_the_8_bit_grid(value: int, added: float, expected: int) -> None:
    # 100 + .25 * 255 = 163.75 -> 164 on the grid
    trigger = Trigger(torch.full((3, 1, 1), added), torch.ones(1, 1, 1), blend="add")
    stamped = trigger.apply(torch.full((2, 3, 4, 4), value / 255))
    on_grid = stamped[:, :, 0, 0] * 255
    assert torch.allclose(on_grid, torch.full((2, 3), float(expected)), atol=1e-4)


def test_gradients_of_pattern_and_alpha_match_finite_differences() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 2, 6, 5, dtype=torch.float64)
    pattern = torch.rand(2, 3, 2, dtype=torch.float64, requires_grad=True)
    alpha = torch.rand(1, 3, 2, dtype=torch.float64, requires_grad=True)
    for placement in (Placement("fixed", 2, 1), Placement("random"), Placement("window", 1, 0, 6, 4)):

        def stamp(p: torch.Tensor, a: torch.Tensor, where: Placement = placement) -> torch.Tensor:
            return Trigger(p, a, where).apply(images, torch.Generator().manual_seed(3))

        assert torch.autograd.gradcheck(stamp, (pattern, alpha))


def test_gradient_of_alpha_is_trigger_minus_pixel() -> None:
    # the slides: d Pixel_after / d alpha = -Pixel_before + trigger
    alpha = torch.full((1, 1, 1), 0.3, requires_grad=True)
    Trigger(torch.full((1, 1, 1), 0.9), alpha).apply(torch.full((1, 1, 2, 2), 0.2)).sum().backward()
    assert alpha.grad is not None and alpha.grad.item() == pytest.approx(0.9 - 0.2)


def test_rounding_passes_gradients_straight_through() -> None:
    pattern = torch.full((1, 1, 1), 0.1, requires_grad=True)
    Trigger(pattern, torch.ones(1, 1, 1), blend="add").apply(torch.full((4, 1, 2, 2), 0.2)).sum().backward()
    assert pattern.grad is not None and pattern.grad.item() == pytest.approx(4)


@pytest.mark.parametrize(
    ("placement", "rows", "columns"),
    [
        (Placement("random"), range(4), range(5)),
        (Placement("window", 1, 2, 5, 6), range(1, 3), range(2, 4)),
    ],
)
def test_every_allowed_place_occurs_and_no_other(placement: Placement, rows: range, columns: range) -> None:
    trigger = Trigger(torch.ones(1, 3, 3), torch.ones(1, 3, 3), placement)
    stamped = trigger.apply(torch.zeros(2000, 1, 6, 7), torch.Generator().manual_seed(0))
    corners = {tuple(np.argwhere(image.numpy())[0]) for image in stamped[:, 0]}
    assert corners == {(r, c) for r in rows for c in columns}
    assert (stamped.sum(dim=(1, 2, 3)) == 9).all()


@pytest.mark.parametrize(
    "placement", [Placement("fixed", 5, 0), Placement("window", 0, 0, 2, 6), Placement("fixed", -1, 0)]
)
def test_a_place_outside_the_image_is_refused(placement: Placement) -> None:
    with pytest.raises(DoorwardError, match="does not fit"):
        Trigger(torch.ones(1, 3, 3), torch.ones(1, 3, 3), placement).apply(torch.zeros(1, 1, 6, 6))


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    trigger = Trigger(torch.rand(3, 2, 4), torch.rand(1, 2, 4), Placement("window", 1, 2, 9, 9), "alpha")
    trigger.save(tmp_path / "t.safetensors")
    again = Trigger.load(tmp_path / "t.safetensors")
    assert torch.equal(again.pattern, trigger.pattern) and torch.equal(again.alpha, trigger.alpha)
    assert (again.placement, again.blend) == (trigger.placement, trigger.blend)
    assert (tmp_path / "t.png").stat().st_size > 0


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x04K\x01."])
def test_a_broken_trigger_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(DoorwardError, match=r"t\.safetensors: .*expected safetensors"):
        Trigger.load(tmp_path / "t.safetensors")
