"""What the repairs that train on share: settings, the split, one call of the training loop, the record."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
from pydantic import Field

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings
from doorward.core.stats import Rate
from doorward.models.train.loop import BatchAttack, train
from doorward.models.train.settings import TrainSettings
from doorward.models.train.teacher import Teacher
from doorward.repairs.repaired import Repaired, Step

_KEPT, _MOST_KEPT = 2.5, 0.5  # share of the loss for the net's own answers, by the share of images that it errs on
_TRIES, BACK_OFF = 4, 3.0  # trainings at most, each at a third of the rate before
_MOST_RATE = 0.01
_CPU_PIXELS = 32 * 224 * 224  # of a batch; more than 128 images of 96 x 96
_MOVEMENT = 0.62  # rate times steps of Qiao, Yang and Li 2019: 0.001, 10 epochs, 8,000 images in batches of 128
_FORGOTTEN = 0.2  # so many fewer right answers on clean images that it was trained on are not the repair's price
_ASKED = 1000  # of these images; a share of them has a standard error of at most .016


class HeldOutSettings(Settings):
    """Base of the settings of every repair that keeps some clean images for its record."""

    held_out: float = Field(0.2, ge=0, lt=1, description="share kept for the record; 0 uses all and measures nothing")


class TuneSettings(HeldOutSettings):
    """Settings of SGD on the clean images.

    Qiao, Yang and Li 2019 take 10 epochs, batches of 128, a constant rate of 0.001, momentum 0.9 and no decay. Only
    the rate differs here: at 0.001 little happens within 10 epochs of a few hundred images. Unless ``lr`` is given, it
    is as large as lets rate times steps be what it is with the authors' 8,000 images, and at most 0.01, times what
    ``keep`` leaves to the labels.
    """

    epochs: int = Field(10, ge=1, description="passes over the clean images")
    batch: int = Field(128, ge=2, description="images per step")
    lr: float | None = Field(
        None, gt=0, description="unless given 0.62 by the number of steps, at most 0.01; the authors: 0.001"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD, Nesterov's")
    weight_decay: float = Field(0.0, ge=0, description="of SGD, on weights and not on biases and norms")
    schedule: Literal["constant", "one-cycle"] = Field("constant", description="of the learning rate")
    flip: bool = Field(False, description="mirror images left to right at random")
    shift: int = Field(0, ge=0, description="largest shift in pixels, each direction")
    keep: float | None = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the loss for the net's own answers on the images unstamped; none: as it errs on them",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of the arithmetic; auto: bf16 where the hardware has it"
    )

    def rate(self, images: int) -> float:
        """The learning rate for so many images."""
        steps = self.epochs * math.ceil(images / self.batch)
        most = _MOST_RATE * (1 - (self.keep or 0.0))
        return min(most, _MOVEMENT / steps) if self.lr is None else self.lr

    def training(self, lr: float) -> TrainSettings:
        """The same for the training loop, at a rate."""
        shared = {k: v for k, v in self.model_dump().items() if k in TrainSettings.model_fields}
        return TrainSettings(**shared | {"lr": lr})


Tuned = TypeVar("Tuned", bound=TuneSettings)


def divide(
    what: str, classifier: Classifier, clean_images: ImageSet, held_out: float, seed: int
) -> tuple[ImageSet, ImageSet | None]:
    """Images to work on and images for the record (None for a share of 0), both checked to fit the classifier."""
    if (clean_images.shape, len(clean_images.classes)) != (classifier.shape, len(classifier.classes)):
        raise DoorwardError(f"repair {what}: {clean_images.name} has other image size or classes than the classifier")
    if not held_out:
        return clean_images, None
    if int(clean_images.counts().max()) * held_out < 1:
        raise DoorwardError(f"repair {what}: {len(clean_images)} clean images; expected more, to hold some out")
    return clean_images.split(held_out, seed)


def trainable_copy(classifier: Classifier) -> Classifier:
    """A copy whose weights can all be trained, in evaluation mode; the classifier itself stays as it was."""
    return replace(classifier, net=copy.deepcopy(classifier.net).eval().requires_grad_(True))


def sample(images: ImageSet, seed: int) -> ImageSet:
    """At most 1,000 of the images, enough to ask a net whether it still knows its classes."""
    return images.subset(np.random.default_rng(seed).permutation(len(images))[:_ASKED])


def step(name: str, classifier: Classifier, held: ImageSet | None) -> Step:
    """A row of the record."""
    return Step(name, Rate(0, 0) if held is None else measure_accuracy(classifier, held))


def finite(classifier: Classifier) -> bool:
    """Whether every weight is a number."""
    return all(bool(p.isfinite().all()) for p in classifier.net.parameters())


def knows(classifier: Classifier, asked: ImageSet, knew: float, price: float) -> bool:
    """Whether accuracy on these images is what it was (``knew``), less the price at most; never with broken weights."""
    return finite(classifier) and measure_accuracy(classifier, asked).value >= knew - price


def check_finite(what: str, classifier: Classifier, lr: float) -> None:
    """Refuse weights that a too large learning rate blew up."""
    if not finite(classifier):
        raise DoorwardError(f"repair {what}: weights are no longer finite; expected a smaller lr than {lr:g}")


def tune(
    what: str,
    classifier: Classifier,
    clean_images: ImageSet,
    s: TuneSettings,
    *,
    seed: int,
    stamping: BatchAttack | None = None,
    done: str = "",
) -> Repaired:
    """Train a copy of the classifier on, in training mode, each batch passing through ``stamping`` first.

    Order and augmentation of the batches depend on the seed alone, so that arms of one seed see the same images. When
    the net forgets its classes, see `back_off`.

    Args:
        what: the method's name, for errors.
        done: what the record says was done.
    """
    device, s = str(classifier.device), kept(affordable(s, classifier), classifier, clean_images)
    teacher = Teacher(classifier, s.keep) if s.keep else None

    def attempt(repaired: Classifier, fitted: ImageSet, rate: float) -> None:
        training = s.training(rate)
        train(
            fitted,
            classifier.arch,
            training,
            seed=seed,
            device=device,
            batch_attack=stamping,
            start=repaired,
            teacher=teacher,
        )

    done = done or f"{what}: {s.epochs} epochs"
    found = back_off(what, classifier, clean_images, attempt, s.rate, held_out=s.held_out, seed=seed, done=done)
    return replace(found, details={**found.details, "keep": s.keep}) if s.keep else found


def kept(s: Tuned, classifier: Classifier, clean_images: ImageSet) -> Tuned:
    """The settings with a share for the net's own answers, where none was given.

    A net that errs on many clean images is pulled far by their labels, and loses what it knows where images are few:
    with 160 photographs of 96 x 96, on development nets right on 65 to 79 %, 8 points of accuracy at a share of 0.05, 1
    point at 0.5 and half the rate, with as much of the backdoor gone on three nets of four. A net that is right on
    nearly all of them needs little of it, and holds a backdoor that no found trigger leads to faster with more.
    """
    if s.keep is not None:
        return s
    wrong = 1 - measure_accuracy(classifier, sample(clean_images, 0)).value
    return s.model_copy(update={"keep": round(min(_MOST_KEPT, _KEPT * wrong), 3)})


def affordable(s: Tuned, classifier: Classifier) -> Tuned:
    """The settings with batches that a computer without a GPU has memory for: at 224 x 224 at most 32 images."""
    _, height, width = classifier.shape
    most = max(2, _CPU_PIXELS // (height * width))
    return s if classifier.device.type != "cpu" or s.batch <= most else s.model_copy(update={"batch": most})


def back_off(
    what: str,
    classifier: Classifier,
    clean_images: ImageSet,
    attempt: Callable[[Classifier, ImageSet, float], None],
    rate_for: Callable[[int], float],
    *,
    held_out: float,
    seed: int,
    done: str,
    price: float | None = None,
) -> Repaired:
    """Train a copy of the classifier on, at a rate that does not make it forget its classes.

    A net without batch norm can forget them at a rate that suits others: when the copy is right on clearly fewer of the
    clean images that it was trained on than before, it is trained again from the start at a third of the rate.

    Args:
        what: the method's name, for errors.
        attempt: trains the copy it is handed on these images at this rate, in place.
        rate_for: the first rate, for so many images.
        done: what the record says was done.
        price: so much accuracy on held-out images (where there are none: on those it is trained on) may be lost, in
            place of 0.2 on those it is trained on.
    """
    fitted, held = divide(what, classifier, clean_images, held_out, seed)
    if len(fitted) < 2:
        raise DoorwardError(f"repair {what}: {len(fitted)} clean image to train on; expected at least 2")
    asked = sample(fitted if price is None or held is None else held, seed)
    given, knew = step("as given", classifier, held), measure_accuracy(classifier, asked).value
    forgot, forget, forgets = "forgot the classes", "forget its classes", "forgets its classes"
    if price is not None:
        forgot, forget, forgets = (
            f"{w} more than {100 * price:g} points of accuracy" for w in ("lost", "lose", "loses")
        )
    first, tries = rate_for(len(fitted)), []
    for number in range(_TRIES):
        repaired, rate = trainable_copy(classifier), first / BACK_OFF**number
        attempt(repaired, fitted, rate)
        kept = knows(repaired, asked, knew, _FORGOTTEN if price is None else price)
        if kept:
            break
        tries.append(step(f"{what}: {forgot} at a rate of {rate:.2g}", repaired, held))
    check_finite(what, repaired, rate)
    after = step(done, repaired, held)
    details: dict[str, object] = {"fitted_images": len(fitted), "lr": rate}
    told: tuple[str, ...] = ()
    if not kept:
        told = (f"the net {forgets} at all rates from {first:g} down to {rate:.2g}",)
    elif tries:
        told = (f"a rate of {first:g} made the net {forget}; {rate:.2g} was used",)
    return Repaired(repaired, (given, *tries, after), details, told)
