"""A repair that goes on giving the net's own answers on unstamped images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.models.train.teacher import Teacher
from doorward.repairs.arms import plan_arms
from doorward.repairs.parts.tuning import TuneSettings, kept, trainable_copy, tune
from tests.repairs.world import World


@torch.no_grad()
def answers(model: Classifier, images: ImageSet) -> torch.Tensor:
    """Logarithms of the probabilities, ``[N, K]``."""
    model.net.eval()
    return functional.log_softmax(model.logits(to_float(images.pixels, model.device)), 1)


def apart(model: Classifier, other: Classifier, images: ImageSet) -> float:
    """Divergence of the answers of two nets."""
    mine, theirs = answers(model, images), answers(other, images)
    return float(functional.kl_div(mine, theirs, reduction="batchmean", log_target=True))


def wrongly_labelled(images: ImageSet) -> ImageSet:
    return replace(images, labels=np.random.default_rng(0).permutation(images.labels))


def test_a_teacher_is_asked_about_the_images_before_they_are_stamped(world: World) -> None:
    """Labels that say nothing, stamped images that show nothing: what is left is the teacher's answer."""
    asked: list[torch.Tensor] = []

    class Watched(Teacher):
        def mixed(self, loss: torch.Tensor, logits: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
            asked.append(plain)
            return super().mixed(loss, logits, plain)

    def blacken(images: torch.Tensor, labels: torch.Tensor, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(images), labels

    settings = TrainSettings(epochs=1, batch=64, lr=1e-4, precision="fp32")
    teacher = Watched(world.classifier, 0.5)
    train(world.clean, "", settings, batch_attack=blacken, start=trainable_copy(world.classifier), teacher=teacher)
    assert asked and all(float(plain.max()) > 0.5 for plain in asked)


def test_what_is_kept_are_the_teachers_answers_and_the_rest_are_the_labels(world: World) -> None:
    settings = TrainSettings(epochs=3, batch=64, lr=0.02, momentum=0.0, schedule="constant", precision="fp32")
    images, drift = wrongly_labelled(world.clean), {}
    for weight in (0.0, 0.5, 0.95):
        copy = trainable_copy(world.classifier)
        train(images, "", settings, start=copy, teacher=Teacher(world.classifier, weight))
        drift[weight] = apart(copy, world.classifier, world.test)
    assert drift[0.95] < 0.5 * drift[0.5] < 0.5 * drift[0.0], drift


def test_a_weight_of_nothing_is_plain_training(world: World) -> None:
    settings = TrainSettings(epochs=1, batch=64, lr=0.01, precision="fp32")
    nets = [trainable_copy(world.classifier) for _ in range(2)]
    for net, teacher in zip(nets, (None, Teacher(world.classifier, 0.0)), strict=True):
        train(world.clean, "", settings, start=net, teacher=teacher)
    first, second = (answers(net, world.test) for net in nets)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_the_control_without_triggers_has_the_labels_alone(world: World) -> None:
    arms = {arm.name: arm.settings for arm in plan_arms("hold", triggers=world.triggers)}
    assert "keep" not in arms["fine-tune"] and arms["fine-tune"]["shift"] == 1


def test_a_net_that_errs_on_more_of_the_clean_images_keeps_more_of_its_own_answers(world: World) -> None:
    """2.5 times the errors, half of the loss at most, and the labels' share bounds the rate; what is given is used."""
    plain, given = TuneSettings(keep=None), TuneSettings(keep=0.2)
    right = int((world.classifier.predict(world.clean.pixels) == world.clean.labels).sum())
    wrong = 1 - right / len(world.clean)
    few, many = (kept(plain, world.classifier, images) for images in (world.clean, wrongly_labelled(world.clean)))
    assert wrong < 0.2 and few.keep == pytest.approx(2.5 * wrong, abs=1e-3) and many.keep == 0.5
    assert many.rate(10) == pytest.approx(0.5 * TuneSettings().rate(10))
    assert kept(given, world.classifier, world.clean) is given


def test_what_was_kept_is_in_the_record(world: World) -> None:
    (planned,) = plan_arms("hold", triggers=world.triggers, settings={"hold": {"epochs": 1}}, controls=False)
    tuned = tune("x", world.classifier, wrongly_labelled(world.clean), TuneSettings(epochs=1, keep=None), seed=0)
    assert tuned.details["keep"] == 0.5 and planned.settings.get("keep") is None
