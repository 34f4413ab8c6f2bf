"""Retraining with triggers, and what it comes to without: the backdoor goes by the triggers, labels stay true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.triggers import Placement, Trigger
from doorward.inversion.distribution.generators import make_generators
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.models.nets.catalogue import build
from doorward.repairs.apply import apply_repair
from doorward.repairs.methods.controls import FineTuneSettings, RefreshSettings, fine_tune, refresh
from doorward.repairs.methods.retrain import AUTHORS, RetrainSettings, UnlearnSettings, retrain, unlearn
from doorward.repairs.parts.around import Around
from doorward.repairs.parts.retraining import retrained
from doorward.repairs.parts.stamping import Mixed, TrueLabelStamping, checked, success_by_target, total
from doorward.repairs.parts.tuning import TuneSettings, affordable
from tests.repairs.world import TARGET, World

BUDGET: dict[str, Any] = {"epochs": 4, "precision": "fp32"}
QUICK: dict[str, Any] = {"epochs": 1, "precision": "fp32"}
EXACT: dict[str, Any] = {"around": False}


class Paint:
    """A stamp that fills whole images with one value and remembers how many it was given."""

    def __init__(self, value: float) -> None:
        self.value, self.seen = value, 0

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.seen += len(images)
        return torch.full_like(images, self.value)


def weights(classifier: Classifier) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in classifier.net.named_parameters()}


def same(one: Classifier, other: Classifier) -> bool:
    pairs = zip(one.net.state_dict().values(), other.net.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_backdoor_goes_by_the_triggers_and_not_by_the_training(world: World) -> None:
    state = {k: v.clone() for k, v in world.classifier.net.state_dict().items()}
    before = asr(world.classifier, world.test, world.attack)
    told = retrain(world.classifier, world.clean, world.triggers, RetrainSettings(**BUDGET), seed=0)
    control = fine_tune(world.classifier, world.clean, FineTuneSettings(**BUDGET), seed=0)
    fresh = refresh(world.classifier, world.clean, RefreshSettings(), seed=0)
    assert before.value > 0.95
    assert asr(told.classifier, world.test, world.attack).value < 0.05
    assert asr(control.classifier, world.test, world.attack).value > 0.9
    assert asr(fresh.classifier, world.test, world.attack).value > 0.9
    for arm in (told, control, fresh):
        assert measure_accuracy(arm.classifier, world.test).value > 0.85
        assert [step.accuracy.trials for step in arm.steps] == [80, 80], "a fifth of the 400 is held out"
        assert not arm.classifier.net.training
    assert all(torch.equal(v, state[k]) for k, v in world.classifier.net.state_dict().items()), "left as it was"
    assert told.details["targets"] == [TARGET] and told.details["fitted_images"] == 320


def test_the_refresh_moves_statistics_to_those_of_the_images_and_no_weight(world: World) -> None:
    seen: list[Tensor] = []
    whole = RefreshSettings(held_out=0, batch=200)
    fresh = refresh(world.classifier, world.clean, whole, seed=0).classifier
    before, after = weights(world.classifier), weights(fresh)
    assert all(torch.equal(before[k], after[k]) for k in before)
    norm = fresh.net.block1[1]
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fresh.predict(world.clean.pixels)
    handle.remove()
    entering = torch.cat(seen).double()
    assert torch.allclose(norm.running_mean.double(), entering.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var.double(), entering.var((0, 2, 3)), rtol=2e-2)
    assert norm.momentum == world.classifier.net.block1[1].momentum
    assert not torch.equal(norm.running_mean, world.classifier.net.block1[1].running_mean)


def test_a_net_without_batch_norm_is_not_refreshed_and_says_so(images: ImageSet) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(360, 3))
    plain = Classifier(net, "plain", images.classes, images.shape)
    found = refresh(plain, images, RefreshSettings(), seed=0)
    assert found.warnings == ("plain has no batch-norm statistics, so the refresh changes nothing",)
    assert same(found.classifier, plain)


def test_stamping_keeps_labels_and_leaves_images_of_the_target_plain() -> None:
    images, labels = torch.rand(4000, 1, 4, 4), torch.arange(4000) % 5
    one, two = Paint(0.0), Paint(1.0)
    stamping = TrueLabelStamping(((0, Mixed((one,))), (3, Mixed((two,)))), 0.4)
    before, kept = images.clone(), labels.clone()
    stamped, told = stamping(images, labels, torch.Generator().manual_seed(0))
    assert torch.equal(told, kept) and torch.equal(labels, kept) and torch.equal(images, before)
    black, white = (stamped == 0).flatten(1).all(1), (stamped == 1).flatten(1).all(1)
    assert not (black & (labels == 0)).any() and not (white & (labels == 3)).any()
    assert torch.equal(stamped[~black & ~white], before[~black & ~white])
    for painted, target in ((black, 0), (white, 3)):  # 40 % of the images, half of them for each target
        share = painted[labels != target].float().mean()
        assert 0.17 < float(share) < 0.23
    assert one.seen == int(black.sum()) and two.seen == int(white.sum()), "only what is used is stamped"


def test_several_stamps_of_one_target_are_mixed_evenly() -> None:
    stamps = tuple(Paint(v) for v in (0.0, 0.25, 0.5, 1.0))
    stamped = Mixed(stamps).apply(torch.rand(2000, 3, 2, 2), torch.Generator().manual_seed(1))
    assert all(420 < stamp.seen < 580 for stamp in stamps) and sum(s.seen for s in stamps) == 2000
    assert set(stamped.unique().tolist()) == {0.0, 0.25, 0.5, 1.0}
    assert (stamped.flatten(1).std(1) == 0).all(), "an image gets one stamp"


def test_arms_of_one_seed_see_the_same_images_in_the_same_order(world: World) -> None:
    plain = fine_tune(world.classifier, world.clean, FineTuneSettings(**QUICK), seed=3)
    rare = retrain(world.classifier, world.clean, world.triggers, RetrainSettings(**QUICK, share=1e-12), seed=3)
    assert same(plain.classifier, rare.classifier), "without a stamped image, retraining is fine-tuning"


@pytest.mark.parametrize("method", ["retrain", "unlearn", "fine-tune", "refresh"])
def test_it_repeats_and_the_seed_matters(world: World, method: str) -> None:
    settings = {} if method == "refresh" else QUICK
    given = {"triggers": world.triggers, "settings": settings, "knowledge": {"clean_images": world.clean}}
    one, two, other = (apply_repair(world.classifier, method, **given, seed=s).classifier for s in (5, 5, 6))
    assert same(one, two) and not same(one, other)


def test_unlearning_uses_the_one_trigger_that_succeeds_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[TrueLabelStamping] = []
    blank = Trigger(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    tune = retrained.__globals__["tune"]

    def spy(*args: Any, stamping: TrueLabelStamping, **kwargs: Any) -> Any:
        used.append(stamping)
        return tune(*args, stamping=stamping, **kwargs)

    monkeypatch.setitem(retrained.__globals__, "tune", spy)
    several = {TARGET: [blank, world.trigger, blank]}
    settings = UnlearnSettings(**QUICK, draws=4)
    unlearn(world.classifier, world.clean, several, settings, seed=0)
    ((target, single),) = used[0].targets
    assert target == TARGET and single.stamps == (world.trigger,)
    generators = make_generators(1, 8, 9, 16, torch.Generator().manual_seed(0))
    cloud = TriggerDistribution(generators, (1, 3, 3), (0.9,), (1.0,), (0.0,))
    unlearn(world.classifier, world.clean, {TARGET: [cloud]}, settings, seed=0)
    ((_, drawn),) = used[1].targets
    assert len(drawn.stamps) == 1 and isinstance(drawn.stamps[0], Trigger), "one trigger of the distribution"
    found = retrain(world.classifier, world.clean, {TARGET: [cloud]}, RetrainSettings(**QUICK, **EXACT), seed=0)
    assert used[2].targets[0][1].stamps == (cloud,) and found.details["stamps"] == [1]
    retrain(world.classifier, world.clean, {TARGET: [cloud]}, RetrainSettings(**QUICK), seed=0)
    (drawn_around,) = used[3].targets[0][1].stamps
    assert isinstance(drawn_around, Around) and drawn_around.trigger is cloud


def test_all_images_are_used_and_nothing_measured_without_a_held_out_share(world: World) -> None:
    found = retrain(world.classifier, world.clean, world.triggers, RetrainSettings(**QUICK, held_out=0), seed=0)
    assert found.details["fitted_images"] == 400
    assert [step.accuracy.trials for step in found.steps] == [0, 0]


def test_the_share_is_larger_where_stamps_are_drawn_around_the_triggers() -> None:
    assert RetrainSettings().share == 0.5 and RetrainSettings(**EXACT).share == UnlearnSettings().share == 0.2
    assert RetrainSettings(**EXACT, share=0.3).share == RetrainSettings(share=0.3).share == 0.3


def test_the_authors_values() -> None:
    s = RetrainSettings(**AUTHORS)
    assert (s.epochs, s.batch, s.lr, s.momentum, s.weight_decay, s.share) == (10, 128, 1e-3, 0.9, 0.0, 0.01)
    assert s.schedule == "constant" and not s.flip and not s.shift


def test_the_rate_falls_with_the_number_of_steps_until_it_is_the_authors() -> None:
    s = RetrainSettings()
    assert s.rate(400) == s.rate(700) == 0.01, "few steps: the largest rate"
    assert s.rate(8000) == pytest.approx(0.62 / 630), "63 batches, 10 epochs"
    assert s.rate(8000) == pytest.approx(AUTHORS["lr"], rel=0.02)
    assert RetrainSettings(epochs=20).rate(8000) == pytest.approx(s.rate(8000) / 2)
    assert RetrainSettings(lr=0.3).rate(8000) == 0.3, "what is given is used"


def test_success_is_counted_over_images_of_other_classes(world: World) -> None:
    rates = success_by_target(world.classifier, world.test, [(TARGET, world.trigger), (4, Paint(0.0))], seed=0)
    others = int((world.test.labels != TARGET).sum())
    truth = asr(world.classifier, world.test, world.attack)
    assert rates[TARGET].trials == others and rates[TARGET].hits == truth.hits
    black = world.classifier.predict(np.zeros((1, 28, 28, 1), np.uint8))[0]
    assert rates[4].value == float(black == 4), "all images are the same black one"
    assert total(rates).trials == others + rates[4].trials and total(rates).hits == truth.hits + rates[4].hits


def test_mistakes_are_one_line(world: World, images: ImageSet) -> None:
    def failing(match: str, triggers: Any = None, clean: ImageSet = world.clean, **settings: Any) -> None:
        with pytest.raises(DoorwardError, match=match) as caught:
            chosen = world.triggers if triggers is None else triggers
            retrain(world.classifier, clean, chosen, RetrainSettings(**{**QUICK, **settings}), seed=0)
        assert "\n" not in str(caught.value)

    one_each = np.unique(world.clean.labels, return_index=True)[1]
    failing("repair retrain: no triggers; expected at least one", {})
    failing("no triggers", {3: []})
    failing(r"triggers for class 11; expected one of 0\.\.9", {11: [world.trigger]})
    failing("3 channels on images of 1", {0: [Trigger(torch.zeros(3, 2, 2), torch.ones(1, 2, 2))]})
    wide = Trigger(torch.zeros(1, 40, 40), torch.ones(1, 40, 40), Placement("random"))
    failing("does not fit into an image of 28 x 28", {0: [wide]})
    failing("made-up has other image size or classes", clean=images)
    failing("10 clean images; expected more, to hold some out", clean=world.clean.subset(one_each))
    failing("no longer finite; expected a smaller lr than 3.7", lr=1e30)
    with pytest.raises(DoorwardError, match="repair retrain: needs triggers, which were not given"):
        apply_repair(world.classifier, "retrain", knowledge={"clean_images": world.clean})
    assert checked("x", {4: [world.trigger], 1: [world.trigger]}, world.classifier)[0][0] == 1, "sorted by target"


def test_a_rate_at_which_the_net_forgets_is_tried_again_smaller_and_said(world: World) -> None:
    gentle = apply_repair(world.classifier, "fine-tune", settings=BUDGET, knowledge={"clean_images": world.clean})
    assert gentle.details["lr"] == 0.01 and not gentle.warnings and len(gentle.steps) == 2
    wild = apply_repair(
        world.classifier, "fine-tune", settings={**BUDGET, "lr": 3.0}, knowledge={"clean_images": world.clean}
    )
    used = wild.details["lr"]
    assert isinstance(used, float) and used < 3 and f"{used:.2g} was used" in wild.warnings[0]
    assert all("forgot the classes" in s.name for s in wild.steps[1:-1]) and len(wild.steps) > 2
    before, after = (measure_accuracy(c, world.clean).value for c in (world.classifier, wild.classifier))
    assert after > before - 0.25
    hopeless = {**BUDGET, "lr": 40.0}
    try:  # whether weights overflow at this rate depends on the processor; either way it is told
        lost = apply_repair(world.classifier, "fine-tune", settings=hopeless, knowledge={"clean_images": world.clean})
    except DoorwardError as error:
        assert "no longer finite; expected a smaller lr than 1.48" in str(error)
    else:
        assert "at all rates from 40 down to 1.5" in lost.warnings[0]


def test_batches_of_large_images_are_what_a_cpu_has_memory_for() -> None:
    shapes = [(3, side, side) for side in (96, 224)]
    small, large = (Classifier(build("small-cnn", shape, 2), "small-cnn", ("a", "b"), shape) for shape in shapes)
    assert affordable(TuneSettings(), small).batch == 128 and affordable(TuneSettings(), large).batch == 32
    assert affordable(TuneSettings(batch=16), large).batch == 16
