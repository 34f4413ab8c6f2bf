"""The staircase covers the whole set of triggers that work; a single trigger is one point of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.inversion.distribution.generators import generate, make_generators, settled
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.inverted import Inverted
from doorward.inversion.methods.mesa import MesaObjective, MesaSettings, mesa, staircase_weights
from doorward.inversion.methods.pixel import PixelSettings, pixel
from doorward.inversion.search.loop import Watch
from tests.inversion.worlds import Ring, ring_scene

SETTINGS = MesaSettings(
    steps=500, batch=128, size=1, test="cross-entropy", levels="uniform", count=2, width=48, noise=8, blur=0.02,
    alpha=0.3, lr=3e-3, precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def ring() -> Inverted:
    return mesa(ring_scene(), SETTINGS, seed=0, watch=Watch(), target_class=1)


def sectors(points: torch.Tensor, count: int = 12) -> int:
    """How many of the sectors around the middle hold points."""
    angle = torch.atan2(points[:, 1] - 0.5, points[:, 0] - 0.5)
    return len(((angle / (2 * math.pi) % 1) * count).long().unique())


def test_generators_cover_the_ring_and_a_single_trigger_does_not(ring: Inverted) -> None:
    points = ring.distributions[1].sample(2000, torch.Generator().manual_seed(0), level=1)[:, :, 0, 0]
    away = ((points - 0.5).norm(dim=1) - Ring.RADIUS).abs()
    inside = away < Ring.WIDTH
    assert inside.float().mean() > 0.5, "the level asks for a success rate of one half"
    assert sectors(points[inside]) == 12
    alone = pixel(ring_scene(), PixelSettings(steps=60, size=1, lr=0.005), seed=0, watch=Watch(), target_class=1)
    assert alone.works[1] and sectors(alone.triggers[1][0].pattern[:, 0, 0][None]) == 1


def test_the_lowest_level_asks_for_nothing_and_spreads_over_the_square(ring: Inverted) -> None:
    free = ring.distributions[1].sample(2000, torch.Generator().manual_seed(0), level=0)[:, :, 0, 0]
    cells = (free.clamp(0, 0.999) * 4).long()
    assert len((cells[:, 0] * 4 + cells[:, 1]).unique()) == 16
    lowest, higher = ring.distributions[1].entropies
    assert lowest > higher, "a larger set has a larger entropy"
    # differential entropy of a uniform distribution is the log of its area; the estimates are lower bounds of it
    area = math.pi * ((Ring.RADIUS + Ring.WIDTH) ** 2 - (Ring.RADIUS - Ring.WIDTH) ** 2)
    assert lowest < 0.25 and higher < math.log(area) + 0.25
    assert lowest - higher == pytest.approx(-math.log(area), abs=0.6)


def test_measured_success_is_that_of_the_samples(ring: Inverted) -> None:
    distribution = ring.distributions[1]
    points = distribution.sample(4000, torch.Generator().manual_seed(5), level=1)[:, :, 0, 0]
    inside = (((points - 0.5).norm(dim=1) - Ring.RADIUS).abs() < Ring.WIDTH).float().mean()
    assert distribution.success[1] == pytest.approx(float(inside), abs=0.06)


def test_a_distribution_survives_the_disk_and_stamps_as_a_trigger_does(ring: Inverted, tmp_path: Path) -> None:
    distribution = ring.distributions[1]
    distribution.save(tmp_path / "d.safetensors")
    again = TriggerDistribution.load(tmp_path / "d.safetensors")
    first, second = (d.sample(50, torch.Generator().manual_seed(1)) for d in (distribution, again))
    assert torch.equal(first, second) and again.weights == distribution.weights
    images = torch.rand(6, 2, 4, 5)
    stamped = again.apply(images, torch.Generator().manual_seed(2))
    assert ((stamped != images).any(1).flatten(1).sum(1) == 1).all(), "one pixel each"
    assert len(torch.unique((stamped - images).abs().sum(1).flatten(1).argmax(1))) > 1, "at places of their own"
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(DoorwardError, match="not a trigger distribution"):
        TriggerDistribution.load(tmp_path / "broken.safetensors")


def test_weights_of_the_staircase() -> None:
    # steps .5, .3, .1 high, volumes 8, 4, 1: 4 : 1.2 : .1
    entropies = np.log([8.0, 4.0, 1.0])
    assert staircase_weights((0.5, 0.8, 0.9), entropies) == pytest.approx(np.array([4, 1.2, 0.1]) / 5.3)
    assert staircase_weights((0.0, 0.5), entropies[:2]) == pytest.approx((0, 1))
    assert staircase_weights((0.5, 0.8), entropies[:2], "equal") == (0.5, 0.5)
    assert staircase_weights((0.0,), entropies[:1]) == (1.0,)


def test_levels() -> None:
    assert MesaSettings().betas() == (0.5, 0.8, 0.9)
    assert MesaSettings(levels="uniform", count=4).betas() == (0, 0.25, 0.5, 0.75)


@pytest.mark.parametrize("test", ["softmax", "cross-entropy"])
def test_penalties_by_hand(test: str) -> None:
    objective = MesaObjective(ring_scene(), SETTINGS.model_copy(update={"test": test}))
    chance = torch.tensor([[0.2, 0.9, 0.6]], dtype=torch.float64)
    logits = torch.stack([torch.zeros_like(chance), (chance / (1 - chance)).log()], dim=2)
    counts = torch.tensor([[1.0, 1.0, 0.0]])  # the third image is of the class itself
    beta = torch.tensor([0.8], dtype=torch.float64)
    found = objective.penalty(logits, torch.tensor([1]), beta, counts)
    by_hand = {
        "softmax": 0.8 - (0.2 + 0.8) / 2,  # beta minus the mean of min(.2, .8) and min(.9, .8)
        "cross-entropy": math.log(0.8) - (math.log(0.2) + math.log(0.9)) / 2,  # log beta minus the mean log probability
    }
    assert float(found) == pytest.approx(by_hand[test])
    assert float(objective.penalty(logits, torch.tensor([1]), beta * 0, counts)) == 0


def test_generators_of_one_pass_equal_those_one_at_a_time_and_settling_fixes_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    net, noise = make_generators(3, 8, 5, 16, generator), torch.rand(3, 64, 8, generator=generator)
    together = generate(net, noise)
    for lane in range(3):
        part = slice(lane, lane + 1)
        alone = generate({k: v[part] for k, v in net.items()}, noise[part])
        assert torch.allclose(together[part], alone, atol=1e-6)
    fixed = settled(net, noise)
    assert torch.allclose(generate(fixed, noise), together, atol=1e-5)
    assert torch.allclose(generate(fixed, noise[:, :3]), together[:, :3], atol=1e-5)


def test_with_transparency_what_is_seen_lies_on_the_ring(tmp_path: Path) -> None:
    """The images are black, so that a trigger (t, alpha) works when alpha t lies on the ring."""
    clear = SETTINGS.model_copy(update={"transparency": True, "count": 2})
    distribution = mesa(ring_scene(), clear, seed=0, watch=Watch(), target_class=1).distributions[1].only(1)
    patterns, alpha = distribution.draw(3000, torch.Generator().manual_seed(0))
    assert alpha.shape == (3000, 1, 1, 1) and alpha.min() >= 0 and alpha.max() <= 1
    seen = distribution.apply(torch.zeros(3000, 2, 1, 1), torch.Generator().manual_seed(0))
    assert torch.equal(seen[:, :, 0, 0], (alpha * patterns)[:, :, 0, 0])
    inside = ((seen[:, :, 0, 0] - 0.5).norm(dim=1) - Ring.RADIUS).abs() < Ring.WIDTH
    assert float(inside.float().mean()) == pytest.approx(distribution.success[0], abs=0.06)
    assert inside.float().mean() > 0.4
    # of the volume of (t, alpha) that works, the fibre over a point p has 1 / max(p) - 1: most lies at dark p
    assert sectors(seen[inside][:, :, 0, 0]) >= 4
    assert alpha[inside].std() > 0.05, "not one transparency but many"

    distribution.save(tmp_path / "d.safetensors")
    again = TriggerDistribution.load(tmp_path / "d.safetensors")
    mine, read = (d.draw(9, torch.Generator().manual_seed(1))[1] for d in (distribution, again))
    assert torch.equal(mine, read)
    assert again.transparency and again.trigger(torch.Generator().manual_seed(1)).alpha.max() < 1
