"""A repair that looks again: it stops when the target stands out no more, and what it says is measured afresh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.core.classifier import measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.triggers import Trigger
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.repairs.methods.hold import HoldSettings, hold
from doorward.repairs.parts.standing import Standing
from doorward.repairs.repair import repair
from tests.repairs.world import TARGET, World

QUICK: dict[str, Any] = {"epochs": 1, "precision": "fp32"}


def seen(size: float, p: float | None, smallest: float = 40.0) -> list[Standing]:
    dot = Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    return [Standing("mask", TARGET, size, 50.0, smallest, p, dot)]


@pytest.mark.parametrize(
    ("looks", "rounds"),
    [
        ([seen(60, 0.9)], 1),
        ([seen(60, 0.01), seen(60, 0.9)], 2),
        ([seen(30, 0.9), seen(30, 0.9), seen(30, 0.9)], 3),
        ([seen(60, None)], 1),
        ([[]], 1),
    ],
    ids=[
        "gone",
        "stood out once",
        "always the smallest",
        "no p-value and not the smallest",
        "too few classes",
    ],
)
def test_it_stops_when_the_target_stands_out_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch, looks: list[list[Standing]], rounds: int
) -> None:
    seeds: list[int] = []

    def look(classifier: object, images: ImageSet, targets: object, s: object, seed: int) -> list[Standing]:
        seeds.append(seed)
        assert len(images) == 320, "on the images that it works on"
        return looks[len(seeds) - 1]

    monkeypatch.setitem(hold.__globals__, "_look", look)
    found = hold(world.classifier, world.clean, world.triggers, HoldSettings(**QUICK), seed=0)
    assert len(seeds) == len(set(seeds)) == rounds == len(found.details["rounds"])  # type: ignore[arg-type]
    assert [row["triggers"] for row in found.details["rounds"]] == [1, 2, 3][:rounds], "new ones join the others"  # type: ignore[attr-defined]
    assert [step.name.split(":")[0] for step in found.steps] == ["as given", *(f"round {n + 1}" for n in range(rounds))]
    assert bool(found.warnings) == (rounds == 3) and not found.classifier.net.training
    assert len(world.triggers[TARGET]) == 1, "what it was given is left as it was"


@pytest.mark.slow
def test_the_attackers_square_is_gone_and_a_repair_that_does_nothing_is_called_so(
    digits: tuple[ImageSet, ImageSet],
) -> None:
    """An inversion finds some pixels of the square; the repair must hold against the whole one."""
    poisoned = attack(digits[0], "patch", target=3, rate=0.08, seed=100, settings={"size": 4, "colours": "white"})
    settings = TrainSettings(epochs=6, batch=32, lr=0.05, precision="fp32")
    model = train(poisoned.images, "small-cnn", settings, seed=100, device="cpu")
    order = np.random.default_rng(0).permutation(len(digits[1]))
    clean, test = digits[1].subset(np.sort(order[:500])), digits[1].subset(np.sort(order[500:]))
    (stamp,) = (p.stamp for p in poisoned.attack.pairings)
    assert isinstance(stamp, Trigger)
    top, left = stamp.placement.top, stamp.placement.left
    alpha = torch.zeros(1, 28, 28)
    for row, column in ((0, 1), (1, 3), (2, 0), (3, 2)):
        alpha[0, top + row, left + column] = 1
    found = {3: [Trigger(torch.ones(1, 28, 28), alpha)]}
    made = repair(model, clean, found, controls=False, seed=0)
    assert asr(model, test, poisoned.attack).value > 0.9 and asr(made.classifier, test, poisoned.attack).value < 0.05
    assert measure_accuracy(made.classifier, test).value > measure_accuracy(model, test).value - 0.04
    assert made.verdict == "repaired" and made.record.first.method == "hold"
    idle = repair(model, clean, found, "fine-tune", settings={"fine-tune": {"lr": 1e-6}}, controls=False, seed=0)
    assert idle.verdict == "not repaired" and idle.targets == ("3",)
