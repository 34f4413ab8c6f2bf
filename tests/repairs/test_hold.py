"""A repair that looks again: it stops when the target stands out no more, and what it says is measured afresh."""

from __future__ import annotations

from dataclasses import replace
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
from doorward.repairs import proof
from doorward.repairs.arms import default_methods, make_bench, plan_arms
from doorward.repairs.methods.hold import HoldSettings, hold
from doorward.repairs.parts.standing import Standing, look
from doorward.repairs.proof import proved
from doorward.repairs.verdict import judge
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


def some(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """So many digits of five classes, 14 x 14 pixels, and the others: an eighth of the work of ten classes, 28 x 28."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(images.labels < 5))
    halved = images.pixels.reshape(len(images), 14, 2, 14, 2, 1).mean((2, 4)).round().astype(np.uint8)
    few = replace(images, pixels=halved, classes=images.classes[:5], labels=images.labels % 5, ids=())
    return few.subset(np.sort(rows[:count])), few.subset(np.sort(rows[count:]))


@pytest.mark.slow
def test_the_attackers_square_is_gone_and_a_repair_that_does_nothing_is_called_so(
    digits: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inversion finds some pixels of the square; the repair must hold against the whole one."""
    steps = {"mask": {"steps": 100, "batch": 16}, "universal": {"steps": 100, "batch": 32}}
    monkeypatch.setattr(proof, "look", lambda model, images, seed, _: look(model, images, seed, steps))
    training, _ = some(digits[0], 1800, 0)
    poisoned = attack(training, "patch", target=3, rate=0.1, seed=100, settings={"size": 4, "colours": "white"})
    settings = TrainSettings(epochs=6, batch=32, lr=0.05, precision="fp32")
    model = train(poisoned.images, "small-cnn", settings, seed=100, device="cpu")
    clean, test = some(digits[1], 300, 0)
    (stamp,) = (p.stamp for p in poisoned.attack.pairings)
    assert isinstance(stamp, Trigger)
    top, left = stamp.placement.top, stamp.placement.left
    alpha = torch.zeros(1, 14, 14)
    for row, column in ((0, 1), (0, 3), (1, 0), (1, 2), (2, 1), (2, 3), (3, 0), (3, 2)):
        alpha[0, top + row, left + column] = 1
    found = {3: [Trigger(torch.ones(1, 14, 14), alpha)]}
    bench = make_bench(model, clean, found, held_out=0.2, seed=0)
    given = proved(bench, bench.as_given())
    arms, said = {}, {}
    for name, chosen in (("hold", {"search": 80}), ("fine-tune", {"lr": 1e-6})):
        planned = plan_arms(name, triggers=found, settings={name: chosen}, controls=False)
        arms[name] = bench.run(planned[0])
        said[name] = judge((given, proved(bench, arms[name], planned)), model.classes)[0]
    mended = arms[default_methods(True)[0]].repaired.classifier
    assert asr(model, test, poisoned.attack).value > 0.9 and asr(mended, test, poisoned.attack).value < 0.25
    assert measure_accuracy(mended, test).value > measure_accuracy(model, test).value - 0.04
    assert said["hold"].level == "repaired", said["hold"]
    assert said["fine-tune"].level == "not repaired" and said["fine-tune"].targets == ("3",)
