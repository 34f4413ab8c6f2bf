"""A small net with a real backdoor on digits, trained once for the tests of all repairs."""

from __future__ import annotations

from dataclasses import dataclass

from doorward.attacks.attack import attack
from doorward.attacks.plan import Attack
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings

TARGET = 0


@dataclass(frozen=True, eq=False)
class World:
    """A classifier with a 3x3 patch backdoor, 400 clean images to repair with, others to measure on, the truth."""

    classifier: Classifier
    clean: ImageSet
    test: ImageSet
    attack: Attack

    @property
    def trigger(self) -> Stamp:
        return self.attack.pairings[0].stamp

    @property
    def triggers(self) -> dict[int, list[Stamp]]:
        return {TARGET: [self.trigger]}


def make_world(digits: tuple[ImageSet, ImageSet]) -> World:
    """Train the net: about two seconds."""
    training, _ = digits[0].split(0.875, 0)
    poisoned = attack(training, "patch", target=TARGET, rate=0.15, seed=0)
    settings = TrainSettings(epochs=6, batch=32, lr=0.05, precision="fp32")
    classifier = train(poisoned.images, "small-cnn", settings, seed=0, device="cpu")
    clean, test = digits[1].split(0.6, 0)
    return World(classifier, clean, test, poisoned.attack)
