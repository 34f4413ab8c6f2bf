"""What trains, looks, certifies and reads with its values on another device gives what it gives on the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from doorward.attacks.plan import Attack, BatchStamping, Pairing
from doorward.audits import alone, gathering
from doorward.audits.audit import audit
from doorward.audits.parts import anew, copies, suited, trainer
from doorward.certification.smoothing.montecarlo import Learner, predictions
from doorward.certification.smoothing.parts.adapters import NoSettings, TorchLearner
from doorward.cleansers.observe import ObserveOnce, logits_under, observe
from doorward.cleansers.parts.filters import FILTERS
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.pixels import to_float
from doorward.core.triggers import Blend, Placement, Trigger
from doorward.inversion.invert import invert
from doorward.inversion.judge import references as judge
from doorward.inversion.judge.references import train_references
from doorward.inversion.repeat import blindfolded, region_of
from doorward.inversion.search import loop
from doorward.models.files import load_classifier, save_classifier
from doorward.models.open.load import load_model
from doorward.models.train import batches
from doorward.models.train.doubts import estimate_seconds
from doorward.models.train.loop import train
from doorward.models.train.teacher import Teacher
from doorward.repairs.guard import Guard
from doorward.repairs.repair import repair
from doorward.screens.screen import fit
from tests.certification.worlds import small_task
from tests.conftest import make_images
from tests.contract.worlds import TARGET, TRIGGER, World
from tests.devices.pretend import DEVICE, Away
from tests.light import audit_briefly, look_briefly

SHORT = {"epochs": 2, "batch": 16, "lr": 0.01, "precision": "fp32"}
STAMPING = BatchStamping(
    Attack("patch", (Pairing(replace(TRIGGER, pattern=TRIGGER.pattern.expand(3, -1, -1)), 1),)), 0.5, 3
)


def weights(classifier: Classifier) -> dict[str, Tensor]:
    return {k: v.cpu() for k, v in classifier.net.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


TRAININGS: dict[str, dict[str, Any]] = {
    "flipped and shifted": {"settings": SHORT | {"flip": True, "shift": 2}},
    "Adam": {"settings": SHORT | {"optimiser": "adam"}},
    "cropped": {"settings": SHORT, "augment": "imagenet"},
    "by an attacker": {"settings": SHORT, "batch_attack": STAMPING},
}


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_training_is_the_same_there(name: str, on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_disk:
        monkeypatch.setattr(batches, "_RESIDENT_LIMIT", 0)
    images = make_images(24, shape=(16, 16, 3))
    made = [train(images, "small-cnn", device=place, **TRAININGS[name]) for place in ("cpu", str(DEVICE))]
    assert made[1].device == DEVICE
    assert_same(weights(made[0]), weights(made[1]))
    assert measure_accuracy(made[0], images) == measure_accuracy(made[1], images)


@pytest.mark.parametrize("name", ["flipped and shifted", "Adam", "cropped"])
def test_the_steps_of_a_training_do_not_wait_for_the_device(name: str) -> None:
    waits = []
    for count in (32, 64):
        Away.waits.clear()
        train(make_images(count, shape=(16, 16, 3)), "two-layer", device=str(DEVICE), **TRAININGS[name])
        waits.append(Away.waits.total())
    assert waits[0] == waits[1], "twice as many steps"


def test_a_pupil_stays_with_its_teacher(there: World) -> None:
    teacher = Teacher(replace(there.model, net=copy.deepcopy(there.model.net)), 0.5)
    pupil = train(there.clean, settings=SHORT, device=str(DEVICE), start=there.model, teacher=teacher)
    assert pupil.device == DEVICE and estimate_seconds(there.clean, settings=None, device=str(DEVICE), start=pupil) > 0


class Stopped(Exception):
    """A kill in the middle."""


def stop_at(step: int) -> Any:
    def told(stage: str, done: int, *_: Any) -> None:
        if done >= step:
            raise Stopped

    return told


def test_a_training_goes_on_from_its_checkpoint_there(tmp_path: Path) -> None:
    images, settings = make_images(24, shape=(16, 16, 3)), SHORT | {"optimiser": "adam"}
    with pytest.raises(Stopped):
        train(images, settings=settings, device=str(DEVICE), checkpoint=tmp_path / "state", progress=stop_at(1))
    resumed = train(images, settings=settings, device=str(DEVICE), checkpoint=tmp_path / "state")
    assert_same(weights(resumed), weights(train(images, settings=settings, device="cpu")))


def test_a_classifier_there_is_saved_read_and_asked(here: World, there: World, tmp_path: Path) -> None:
    save_classifier(there.model, tmp_path)
    torch.save(weights(here.model), tmp_path / "weights.pt")
    given = {"arch": "small-cnn", "mean": here.model.mean, "std": here.model.std, "device": str(DEVICE)}
    for read in (
        there.model,
        load_classifier(tmp_path, DEVICE),
        load_model(tmp_path, device=str(DEVICE)),
        load_model(tmp_path / "weights.pt", like=here.clean, **given),
        Classifier.from_module(there.model.net, here.clean, here.model.mean, here.model.std),
        here.model.to("cpu"),
    ):
        assert (read.predict(here.test.pixels) == here.model.predict(here.test.pixels)).all()
        assert read.describe()["features"] == here.model.check() and str(read.device) in repr(read)
        with read.watching_features() as seen:
            read.logits(to_float(here.test.pixels[:3], read.device))
        assert seen[0].device == read.device


@pytest.mark.parametrize("kind", ["fixed", "random", "window"])
@pytest.mark.parametrize("blend", ["alpha", "add"])
def test_a_trigger_stamps_images_of_either_device(kind: Any, blend: Blend, tmp_path: Path) -> None:
    shape = (3, 3, 2)
    pattern, alpha = torch.rand(shape), torch.rand(shape)
    place = Placement(kind, 2, 3, bottom=9, right=9)
    here, away = (Trigger(pattern.to(d), alpha.to(d), place, blend) for d in ("cpu", DEVICE))
    images, expected = torch.rand(5, 3, 10, 10), None
    for trigger in (here, away):
        trigger.save(tmp_path / "trigger.safetensors")
        region = region_of(trigger, (10, 10))
        assert (region is None) == (blend == "add" or kind != "fixed") and repr(trigger) == repr(here)
        for stamp in (trigger, Trigger.load(tmp_path / "trigger.safetensors")):
            for given in (images, images.to(DEVICE)):
                stamped = stamp.apply(given, torch.Generator().manual_seed(0))
                assert stamped.device == given.device
                expected = stamped.cpu() if expected is None else expected
                assert torch.equal(stamped.cpu(), expected)


def test_what_is_seen_of_a_set_is_the_same_there(here: World, there: World) -> None:
    one, other = (observe(w.test, w.model, FILTERS, batch=20, seed=3) for w in (here, there))
    assert (one.features == other.features).all() and (one.logits == other.logits).all()
    assert all((one.filtered_logits[f] == other.filtered_logits[f]).all() for f in FILTERS)
    assert len(logits_under(there.test, there.model, "noise")) == len(there.test)
    assert len(ObserveOnce()(there.test, there.model).features) == len(there.test)


SEARCH = {"steps": 8, "check": 2, "halve_from": 4, "batch": 8, "precision": "fp32"}


def test_a_search_goes_on_from_its_checkpoint_there(
    here: World, there: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(w: World, **more: Any) -> Any:
        return invert(w.model, w.clean, ["mask"], settings={"mask": SEARCH}, **more).outcomes["mask"].inverted.statistic

    monkeypatch.setattr(loop.Watch, "due", lambda _: True)
    with pytest.raises(Stopped):
        look(there, folder=tmp_path, progress=stop_at(4))
    assert list(tmp_path.iterdir())
    assert look(there, folder=tmp_path) == pytest.approx(look(here), rel=1e-4)


def test_a_search_out_of_memory_there_goes_on_with_fewer_images(there: World, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, plain = [], loop.Lanes.part

    def part(lanes: loop.Lanes, rows: slice) -> loop.Lanes:
        passes.append(rows)
        if len(passes) == 1:
            raise torch.OutOfMemoryError
        return plain(lanes, rows)

    monkeypatch.setattr(loop.Lanes, "part", part)
    invert(there.model, there.clean, ["mask"], settings={"mask": SEARCH | {"steps": 2}})
    assert passes[1].stop < passes[0].stop


def test_references_and_what_is_hidden_lie_there_too(there: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "_STEPS", 1)
    references, _ = train_references(there.clean.subset(np.arange(60)), 1, net="two-layer", device=str(DEVICE))
    hidden = blindfolded(there.model, np.eye(16, dtype=bool), there.clean)
    quick = {"margin": {"steps": 2, "precision": "fp32"}}
    found = invert(hidden, there.clean, ["margin"], settings=quick, references=references)
    assert references[0].device == hidden.device == DEVICE and found.outcomes["margin"].references is not None


@pytest.mark.parametrize("method", ["retrain", "ft-sam"])
def test_a_repair_there_its_proof_and_its_guard(
    method: str, there: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_briefly(monkeypatch, 2)
    moving = Trigger(TRIGGER.pattern, TRIGGER.alpha, Placement("random"))
    triggers = None if method == "ft-sam" else {TARGET: [TRIGGER, moving]}
    made = repair(there.model, there.clean, triggers, method, settings={method: {"epochs": 1}})
    assert {arm.repaired.classifier.device for arm in made.arms} == {DEVICE}
    repaired = made.arms[1].repaired.classifier
    guard = Guard(there.model, repaired, fit(repaired, there.clean, "strip"))
    guard.save(tmp_path)
    assert (Guard.load(tmp_path, DEVICE).predict(there.test.pixels) == guard.predict(there.test.pixels)).all()


def test_triggers_of_a_distribution_are_drawn_and_stamped_there(there: World) -> None:
    quick = {"levels": "uniform", "count": 2, "steps": 2, "batch": 8, "width": 8}
    found = invert(there.model, there.clean, ["mesa"], settings={"mesa": quick}).outcomes["mesa"].inverted
    drawn = found.distributions[0]
    away = replace(drawn, net={k: v.to(DEVICE) for k, v in drawn.net.items()})
    images = to_float(there.test.pixels[:4])
    for one in (drawn, away):
        for given in (images, images.to(DEVICE)):
            stamped = one.apply(given, torch.Generator().manual_seed(1))
            assert stamped.device == given.device
            assert torch.equal(stamped.cpu(), drawn.apply(images, torch.Generator().manual_seed(1)))


def small_net(images: Tensor, labels: Tensor, generator: torch.Generator) -> Any:
    """A training function of a user's: one step."""
    net = nn.Linear(images[0].numel(), 2).to(images.device)
    nn.functional.cross_entropy(net(images.flatten(1)), labels).backward()
    with torch.no_grad():
        for parameter in net.parameters():
            assert parameter.grad is not None
            parameter -= parameter.grad
    return lambda tests: net(tests.flatten(1))


LEARNERS = [
    ("two-layer", {"hidden": 8, "steps": 2}, {}),
    ("two-layer", {"hidden": 8, "steps": 2}, {"images": 90}),  # more images than cells
    ("two-layer", {"hidden": 8, "steps": 2}, {"domain": 5, "classes": 3}),
    ("ridge", {}, {}),
    ("ridge", {}, {"images": 90, "domain": 5, "classes": 3}),
    ("naive-bayes", {}, {"classes": 3}),
    ("nearest-centroid", {}, {}),
]


@pytest.mark.parametrize(("name", "settings", "world"), LEARNERS)
def test_many_small_nets_vote_there_as_on_the_cpu(name: str, settings: dict[str, Any], world: dict[str, int]) -> None:
    learner, task = Learner.named(name, settings), small_task(**world)
    one, other = (np.concatenate([*predictions(task, learner, 5, 0, 12, d, 6)]) for d in ("cpu", str(DEVICE)))
    assert (one == other).all()


def test_a_training_function_of_a_user_gets_its_tensors_there() -> None:
    learner = Learner("mine", NoSettings(), TorchLearner(small_net))
    one, other = (np.concatenate([*predictions(small_task(), learner, 5, 0, 2, d)]) for d in ("cpu", str(DEVICE)))
    assert (one == other).all()


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Audits of few steps everywhere, that show nothing but where their tensors are."""
    audit_briefly(patch)
    short = {name: {"steps": 3, "batch": 8} for name in ("mask", "universal")}
    for module in (gathering, alone):
        patch.setattr(module, "invert", partial(invert, settings=short))
    for module in (trainer, suited):
        patch.setattr(module, "_STEPS", 5)
        patch.setattr(module, "_EPOCHS", (1, 1))
    patch.setattr(copies.Copies.__init__, "__defaults__", (4,))
    patch.setattr(anew, "train", lambda images, net, *_, **more: train(images, net, SHORT, **more))


@pytest.mark.parametrize("given", ["a set and its model", "a set", "a model"])
def test_an_audit_goes_through_there(given: str, there: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    images = None if given == "a model" else there.train.subset(np.arange(0, 240, 2))
    model = None if given == "a set" else there.model
    found = audit(images, model, there.clean.subset(np.arange(60)), device=str(DEVICE))
    assert found.verdict and found.model is not None and found.model.device == DEVICE
