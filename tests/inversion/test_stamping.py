"""Batched stamping equals the one trigger at a time, and its gradients are exact."""

from __future__ import annotations

import torch

from doorward.core.triggers import Placement, Trigger
from doorward.inversion.search.stamping import blend_whole, corners, stamp_windows


def nchw(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2)


def test_windows_equal_triggers_at_fixed_places() -> None:
    images = torch.rand(4, 7, 6, 3)
    pattern, alpha = torch.rand(2, 2, 3, 3), torch.rand(2, 2, 3, 1)
    top, left = torch.tensor([[0, 5, 1, 2], [3, 2, 5, 0]]), torch.tensor([[3, 0, 1, 2], [0, 1, 2, 3]])
    stamped = stamp_windows(images[None], pattern[:, None], alpha[:, None], top, left)
    for lane in range(2):
        for number in range(4):
            place = Placement("fixed", int(top[lane, number]), int(left[lane, number]))
            one = Trigger(pattern[lane].permute(2, 0, 1), alpha[lane].permute(2, 0, 1), place)
            expected = one.apply(nchw(images[number : number + 1]))
            assert torch.allclose(nchw(stamped[lane])[number : number + 1], expected, atol=1e-6)


def test_whole_blends_equal_triggers() -> None:
    images, mask, pattern = torch.rand(5, 6, 4, 3), torch.rand(2, 6, 4, 1), torch.rand(2, 6, 4, 3)
    stamped = blend_whole(images[None], mask, pattern)
    for lane in range(2):
        expected = Trigger(pattern[lane].permute(2, 0, 1), mask[lane].permute(2, 0, 1)).apply(nchw(images))
        assert torch.allclose(nchw(stamped[lane]), expected, atol=1e-6)


def test_gradients_by_finite_differences_alpha_included() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 5, 4, 2, generator=generator, dtype=torch.float64)
    pattern = torch.rand(2, 1, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    alpha = torch.rand(2, 1, 2, 2, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    top, left = torch.tensor([[0, 3, 1], [2, 0, 3]]), torch.tensor([[2, 0, 1], [0, 1, 2]])
    assert torch.autograd.gradcheck(lambda p, a: stamp_windows(images, p, a, top, left), (pattern, alpha))
    mask = torch.rand(2, 5, 4, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    whole = torch.rand(2, 5, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, p: blend_whole(images, m, p), (mask, whole))


def test_the_slides_derivative_of_transparency() -> None:
    # d pixel_after / d alpha = trigger - pixel_before
    image, pattern = torch.rand(1, 1, 2, 2, 1), torch.rand(1, 1, 2, 2, 1)
    alpha = torch.full((1, 1, 2, 2, 1), 0.3, requires_grad=True)
    zero = torch.zeros(1, 1, dtype=torch.int64)
    stamp_windows(image, pattern, alpha, zero, zero).sum().backward()
    assert alpha.grad is not None and torch.allclose(alpha.grad, pattern - image)


def test_every_place_is_equally_likely_and_fits() -> None:
    top, left = corners(2, 20_000, (5, 4), (3, 2), torch.Generator().manual_seed(0))
    counts = torch.bincount((top * 3 + left).flatten(), minlength=9)
    assert len(counts) == 9 and (counts - 40_000 / 9).abs().max() < 300
