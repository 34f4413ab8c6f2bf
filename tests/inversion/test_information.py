"""The estimator of mutual information against the closed form of correlated Gaussians."""

from __future__ import annotations

import math

import torch

from doorward.inversion.distribution.information import bound, make_statistics, statistics, trainable_bound


def test_correlated_gaussians_in_all_lanes_at_once() -> None:
    # I(x; y) = -d / 2 log(1 - rho^2) for d independent pairs of correlation rho
    correlations = torch.tensor([0.0, 0.5, 0.8, 0.9])
    generator = torch.Generator().manual_seed(0)
    net = {k: v.requires_grad_() for k, v in make_statistics(4, 2, 2, 48, generator).items()}
    optimiser = torch.optim.Adam(net.values(), lr=3e-3)
    average = torch.zeros(4)

    def pairs(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, noise, other, fresh = torch.randn(4, 4, count, 2, generator=generator)
        rho = correlations[:, None, None]
        spread = (1 - rho**2).sqrt()
        return x, rho * x + spread * noise, rho * other + spread * fresh

    for _ in range(400):
        value, average = trainable_bound(*statistics(net, *pairs(256)), average, 0.05)
        optimiser.zero_grad()
        (-value.sum()).backward()
        optimiser.step()
    with torch.no_grad():
        found = bound(*statistics(net, *pairs(20_000)))
    expected = -torch.log(1 - correlations**2)
    assert torch.allclose(found, expected, atol=0.12, rtol=0.08), (found, expected)


def test_value_and_gradient_of_the_corrected_bound() -> None:
    joint, independent = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    independent.requires_grad_()
    average = torch.tensor([0.3, -0.2, 0.0])
    value, moved = trainable_bound(joint, independent, average, 0.1)
    assert torch.allclose(value, bound(joint, independent))
    inside = independent.exp().mean(1)
    expected = (0.9 * average.exp() + 0.1 * inside).log()
    assert torch.allclose(moved, expected.detach(), atol=1e-6)
    value.sum().backward()
    by_hand = -independent.detach().exp() / 64 / moved.exp()[:, None]
    assert torch.allclose(independent.grad, by_hand, atol=1e-6)  # type: ignore[arg-type]


def test_the_bound_of_constant_statistics_is_zero() -> None:
    constant = torch.full((2, 100), 3.0)
    assert torch.allclose(bound(constant, constant), torch.zeros(2), atol=1e-5)
    assert math.isclose(float(bound(constant, constant - 1)[0]), 1.0, abs_tol=1e-5)
