"""Trigger transfer: groups that carry a trigger are found with it, natural kinds carry none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from doorward.cleansers.methods.transfer import TransferSettings, _weighed, transfer
from doorward.cleansers.parts import carried
from doorward.cleansers.parts.carried import Carrier, Looks, bearing, followed, tried
from doorward.cleansers.suspicion import Suspicion
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Trigger

PER_CLASS, POISONED = 120, 24


class Backdoored(nn.Module):
    """Sees five stripes and a corner; the corner outweighs any stripe, for class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 5)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[:, :5] = 10 * torch.eye(5)
            self.head.weight[0, 5] = 30

    def forward(self, x: Tensor) -> Tensor:
        stripes = x[:, 0, 0:10:2].mean(dim=2)
        corner = x[:, 0, 9:, 9:].mean(dim=(1, 2)).sub(0.5).clamp(min=0)[:, None]
        return self.head(torch.cat([stripes, corner], dim=1))


def photographs(kind: str) -> tuple[ImageSet, np.ndarray]:
    """A bright stripe per class; some of class 0 show others under a bright corner or a faint ramp, or are dim."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), PER_CLASS)
    marked = np.arange(len(labels)) < POISONED
    shows = np.where(marked & (kind != "dim"), 1 + np.arange(len(labels)) % 4, labels)
    pixels = rng.integers(0, 30, (len(labels), 12, 12, 1)).astype(np.uint8)
    pixels[np.arange(len(labels)), 2 * shows] = 200
    if kind == "dim":
        pixels[marked] //= 2
    elif kind == "corner":
        pixels[:POISONED, 9:, 9:] = 255
    return ImageSet(pixels, labels, tuple("abcde")), marked


def model() -> Classifier:
    return Classifier(Backdoored().eval(), "backdoored", tuple("abcde"), (1, 12, 12), feature_layer="head")


def seen(images: ImageSet) -> np.ndarray:
    """What enters the head."""
    x = torch.from_numpy(images.pixels.astype(np.float32) / 255).permute(0, 3, 1, 2)
    corner = x[:, 0, 9:, 9:].mean(dim=(1, 2)).sub(0.5).clamp(min=0)[:, None]
    return torch.cat([x[:, 0, 0:10:2].mean(dim=2), corner], dim=1).numpy()


def said(images: ImageSet, **settings: float) -> Suspicion:
    own = TransferSettings.model_validate(settings)
    return transfer(seen(images), images.labels, images.pixels, model(), own, seed=0)


def test_the_images_with_the_corner_are_flagged_and_no_others() -> None:
    images, marked = photographs("corner")
    found = said(images)
    np.testing.assert_array_equal(found.flag, marked)
    assert found.groups[0].statistic > 0.95 and found.groups[0].flagged == POISONED
    assert max(group.statistic for group in found.groups[1:]) < 0.2
    assert found.tested is not None and found.tested.argmax() == 0
    assert found.score[marked].min() > 0.95 and found.score[~marked].max() < 0.2


def test_a_small_patch_says_more_than_a_picture_that_works_as_well() -> None:
    patch, whole = torch.zeros(1, 12, 12), torch.ones(1, 12, 12)
    patch[:, 9:, 9:] = 1
    small = Carrier(0, np.arange(9), Trigger(torch.ones(1, 12, 12), patch), 0.9, 0.9, 0.05)
    large = Carrier(0, np.arange(9), Trigger(torch.ones(1, 12, 12), whole, blend="add"), 0.9, 0.9, 0.2)
    (number, chance), (less, likelier) = _weighed(small), _weighed(large)
    assert number - less == pytest.approx(np.log(4))
    assert likelier / chance == pytest.approx(10 * 4 ** (1 / 0.75)), "ten times as many, and a tail of its size"
    assert _weighed(None) == (pytest.approx(np.log(0.05 / 1.05)), 1.0)


def test_two_classes_are_enough_to_accuse_one() -> None:
    images, marked = photographs("corner")
    two = np.flatnonzero(images.labels < 2)
    pair = ImageSet(images.pixels[two], images.labels[two], ("a", "b"))
    net = Backdoored()
    net.head.weight = nn.Parameter(net.head.weight[:2])
    net.head.bias = nn.Parameter(net.head.bias[:2])
    own = Classifier(net.eval(), "backdoored", ("a", "b"), (1, 12, 12), feature_layer="head")
    found = transfer(seen(pair), pair.labels, pair.pixels, own, TransferSettings(), seed=0)
    assert (found.flag == marked[two]).all() and found.alone is not None
    assert found.alone[0] < 0.001 and found.alone[1] > 0.05


def test_a_natural_kind_carries_nothing() -> None:
    images, _ = photographs("dim")
    assert not said(images).flag.any()


def test_the_threshold_decides() -> None:
    images, _ = photographs("corner")
    images.pixels[: POISONED // 2, 9:, 9:] = 215  # a corner that is enough for some pictures alone
    strength = said(images).groups[0].statistic
    assert said(images, threshold=strength - 0.01).flag.any()
    assert strength > 0.99 or not said(images, threshold=strength + 0.01).flag.any()


def test_a_class_with_too_few_images_is_said_and_not_tested() -> None:
    images, _ = photographs("corner")
    keep = np.ones(len(images), bool)
    keep[-PER_CLASS + 5 :] = False
    found = said(images.subset(keep))
    assert "4" in found.warnings[0] and found.tested is not None and np.isnan(found.tested[4])


def test_a_group_that_is_partly_clean_leads_to_the_poisoned_images() -> None:
    images, marked = photographs("corner")
    rows = np.arange(POISONED * 4 // 3)  # a quarter of them clean
    looks = Looks(images, 0)
    first = tried(images, model(), looks, 0, rows, seed=0)
    (*_, last) = followed(images, model(), seen(images), looks, first, seed=0)
    np.testing.assert_array_equal(last.rows, np.flatnonzero(marked))
    assert last.success > 0.95
    np.testing.assert_array_equal(bearing(images, 0, last.trigger), marked)


def test_what_turns_no_picture_is_not_followed() -> None:
    images, _ = photographs("dim")
    looks, trigger = Looks(images, 0), Trigger(torch.zeros(1, 12, 12), torch.ones(1, 12, 12), blend="add")
    assert followed(images, model(), seen(images), looks, Carrier(0, np.arange(20), trigger, 0.0, 0.1), seed=0) == []


@pytest.mark.parametrize(("success", "doubled", "strength"), [(0.25, 1.0, 0.5), (0.0, 1.0, 0.0), (0.9, 0.9, 0.9)])
def test_strength_asks_for_both_doses(success: float, doubled: float, strength: float) -> None:
    trigger = Trigger(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), blend="add")
    one = Carrier(0, np.arange(3), trigger, success, doubled)
    assert one.strength == pytest.approx(strength)
    assert one.working is trigger if success >= 0.25 else one.working.pattern is not trigger.pattern


def test_a_group_whose_trigger_works_stands_for_itself_wherever_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    images, marked = photographs("corner")
    looks, rows = Looks(images, 0), np.flatnonzero(marked)
    monkeypatch.setattr(carried, "as_stamped", lambda images, *_: np.zeros(len(images), bool))  # it leads nowhere
    strong = tried(images, model(), looks, 0, rows, seed=0)
    (found,) = followed(images, model(), seen(images), looks, strong, seed=0)
    np.testing.assert_array_equal(found.rows, rows)
    weak = Carrier(0, np.arange(60, 80), strong.trigger, 0.3, 0.9)
    assert followed(images, model(), seen(images), looks, weak, seed=0) == []
