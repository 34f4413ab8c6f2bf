"""Adversarial unlearning: the hypergradient against finite differences, the perturbation's bound, what it takes out."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.models.nets.catalogue import build
from doorward.repairs.methods.ibau import IbauSettings, ibau, project
from doorward.repairs.parts.hypergradient import hypergradient
from tests.conftest import make_images
from tests.repairs.world import World


def bowl(size: int) -> Tensor:
    """A positive definite matrix with eigenvalues between 1 and 3."""
    generator = torch.Generator().manual_seed(size)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.linspace(1, 3, size, dtype=torch.float64)) @ basis.T


def test_the_hypergradient_equals_finite_differences_through_the_inner_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    curvature, mixing = bowl(4), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    aim = torch.randn(4, generator=generator, dtype=torch.float64)
    theta = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    unused = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def inner(x: Tensor) -> Tensor:
        return 0.5 * x @ curvature @ x - x @ mixing @ theta.sin()

    def outer(x: Tensor) -> Tensor:
        return (x - aim).square().sum() + (theta * x[:3]).sum() + theta.pow(4).sum()

    def minimum() -> Tensor:
        return torch.linalg.solve(curvature, mixing @ theta.detach().sin())

    at = minimum()
    found, none = hypergradient(inner, outer, at, [theta, unused], steps=200, rate=0.5)
    step, expected = 1e-6, torch.zeros(3, dtype=torch.float64)
    for k in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                theta[k] += sign * step
                values.append(float(outer(minimum())))
                theta[k] -= sign * step
        expected[k] = (values[0] - values[1]) / (2 * step)
    assert torch.allclose(found, expected, rtol=1e-6), "with the minimum following the parameters"
    assert torch.equal(none, torch.zeros(2, dtype=torch.float64)), "a parameter that no loss reads"
    direct = torch.autograd.grad(outer(at), theta)[0]
    assert not torch.allclose(found, direct, rtol=0.05), "the implicit part is no small correction here"
    assert torch.equal(hypergradient(inner, outer, at, [theta], steps=0, rate=0.5)[0], direct)


def test_more_steps_come_nearer() -> None:
    curvature, theta = bowl(5), torch.ones(5, dtype=torch.float64, requires_grad=True)
    at = torch.linalg.solve(curvature, theta.detach())
    truth = torch.linalg.solve(curvature, at)  # of |x|^2 / 2 at x = curvature^-1 theta

    def error(steps: int) -> float:
        found = hypergradient(
            lambda x: 0.5 * x @ curvature @ x - x @ theta, lambda x: 0.5 * x @ x, at, [theta], steps=steps, rate=0.3
        )
        return float((found[0] - truth).norm())

    errors = [error(steps) for steps in (0, 1, 3, 10, 60)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6


def test_the_perturbation_is_projected_on_the_ball() -> None:
    far, near = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 0.1)
    assert torch.allclose(project(far, 2.0), torch.ones(1, 1, 2, 2)) and torch.equal(project(near, 2.0), near)
    assert torch.equal(project(torch.zeros(1, 1, 2, 2), 2.0), torch.zeros(1, 1, 2, 2))


def test_a_backdoor_goes_without_any_trigger(world: World) -> None:
    settings = IbauSettings(rounds=12, batch=32, batches=5, bound=0.1, steps=1)
    found = ibau(world.classifier, world.clean, settings, seed=0)
    assert asr(world.classifier, world.test, world.attack).value > 0.95
    assert asr(found.classifier, world.test, world.attack).value < 0.3
    assert measure_accuracy(found.classifier, world.test).value > 0.8
    norms, losses = found.details["perturbation_norms"], found.details["perturbed_loss"]
    assert isinstance(norms, list) and len(norms) == 12 and max(norms) <= 0.1 * 28 * (1 + 1e-5)
    assert isinstance(losses, list) and max(losses[-3:]) < max(losses) / 10, "it learns to withstand"


def test_it_repeats(images: ImageSet) -> None:
    classifier = fresh(images)
    settings = IbauSettings(rounds=1, ascents=2, batch=20)
    one, two, other = (ibau(classifier, images, settings, seed=s).classifier.net.state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[k], two[k]) for k in one) and not all(torch.equal(one[k], other[k]) for k in one)


def fresh(images: ImageSet) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build("small-cnn", images.shape, 3).eval(), "small-cnn", images.classes, images.shape)


def test_batch_norm_statistics_are_those_of_clean_images_under_the_weights_as_they_are(images: ImageSet) -> None:
    classifier = fresh(images)
    found = ibau(classifier, images, IbauSettings(rounds=1, ascents=2, batch=20, held_out=0.0), seed=0).classifier
    inputs: list[torch.Tensor] = []
    first = dict(found.net.named_modules())["block1.1"]
    assert isinstance(first, torch.nn.BatchNorm2d) and first.running_mean is not None
    first.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    found.predict(images.pixels)
    assert torch.allclose(first.running_mean, torch.cat(inputs).mean(dim=(0, 2, 3)), atol=1e-4)
    assert not found.net.training and not any(m.training for m in found.net.modules())
    assert first.momentum == 0.1, "as it was"


def test_a_rate_that_destroys_the_net_is_lowered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, rounds = list[float](), list[float]()
    module = sys.modules["doorward.repairs.methods.ibau"]
    original = module._rounds

    def destroyed_at_the_first_rate(*given: Any) -> Any:
        repaired, settings, rate = given[0], given[2], given[3]
        rates.append(rate)
        for outcome in original(*given):
            rounds.append(rate)
            if rate == settings.lr:
                for weights in repaired.net.parameters():
                    weights.detach().zero_()
            yield outcome

    monkeypatch.setattr(module, "_rounds", destroyed_at_the_first_rate)
    settings = IbauSettings(rounds=4, batch=32, batches=5, bound=0.1, steps=1, lr=0.003)
    found = ibau(world.classifier, world.clean, settings, seed=0)
    assert len(rates) > 1 and all(a / b == pytest.approx(3) for a, b in pairwise(rates))
    assert found.details["lr"] == rates[-1] and "points of accuracy were lost at a rate of 0.003" in found.warnings[0]
    assert rounds.count(rates[0]) == 2 and rounds.count(rates[-1]) == 4, "given up halfway"


def test_mistakes_are_one_line(images: ImageSet) -> None:
    classifier = fresh(images)
    with pytest.raises(DoorwardError, match="repair ibau: made-up has other image size or classes"):
        ibau(classifier, make_images(60, shape=(9, 9, 3)), IbauSettings(), seed=0)
    with pytest.raises(DoorwardError, match="no longer finite; expected a smaller lr"):
        ibau(classifier, images, IbauSettings(rounds=3, lr=1e30), seed=0)


def test_the_hypergradient_goes_through_fused_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 1, 5, 8, generator=generator)
    weight = torch.randn(8, 8, generator=generator, requires_grad=True)

    def outer(x: Tensor) -> Tensor:
        asked = (tokens + x) @ weight
        return torch.nn.functional.scaled_dot_product_attention(asked, asked, asked).square().sum()

    def inner(x: Tensor) -> Tensor:
        return 0.01 * outer(x) + x.square().sum()

    (found,) = hypergradient(inner, outer, torch.zeros(8), [weight], steps=3, rate=0.1)
    assert bool(found.isfinite().all()) and bool(found.any())
