"""The numbers behind each profile's name, and the numbers that the authors give."""

from __future__ import annotations

from dataclasses import dataclass, field

from doorward.inversion.methods.mask import MaskSettings
from doorward.inversion.methods.mesa import MesaSettings
from doorward.inversion.methods.pixel import PixelSettings
from doorward.models.train.settings import TrainSettings
from doorward.papers.mesa.patterns import COLOURS, black_white_masks, spread_over
from doorward.repairs.methods.retrain import AUTHORS
from doorward.repairs.parts.retraining import StampedSettings

PROFILES = ("cpu", "gpu", "quick")


@dataclass(frozen=True)
class Profile:
    """Everything that decides the results but the seed; see `Plan` for what each entry is."""

    source: str
    net: str
    clean: TrainSettings
    attack: TrainSettings
    mesa: MesaSettings
    pixel: PixelSettings
    repair: StampedSettings
    black_white: tuple[int, ...]
    colour: tuple[int, ...]
    beyond: tuple[int, int]  # how many triggers of each kind are also tried without the crutches
    mask: MaskSettings = field(default_factory=MaskSettings)
    probability: float = 0.01
    rounds: int = 1
    evaluated: float = 0.2


# Of the authors' pixel baseline: five passes over a tenth of the defender's images.
AUTHORS_SEARCH = {"steps": 31, "batch": 128}

# The authors retrain with each generator in turn, hence equal weights.
_EQUAL = {"weights": "equal"}

_GPU = Profile(
    source="cifar10",
    net="resnet18",
    clean=TrainSettings(epochs=30, flip=True, shift=4),
    attack=TrainSettings(epochs=10, lr=1e-3, weight_decay=0, schedule="constant"),
    mesa=MesaSettings(width=512, lr=2e-4, average=1e-3, **_EQUAL),
    pixel=PixelSettings(runs=10),
    repair=StampedSettings(**AUTHORS, held_out=0),
    black_white=tuple(range(len(black_white_masks()))),
    colour=tuple(range(COLOURS)),
    beyond=(3, 2),
)

_CPU = Profile(
    source="cifar10",
    net="resnet20",
    clean=TrainSettings(epochs=12, flip=True, shift=2),
    attack=TrainSettings(epochs=2, lr=0.02, weight_decay=0),
    rounds=4,
    mesa=MesaSettings(**_EQUAL),
    pixel=PixelSettings(runs=3),
    # half the epochs at twice the rate with twice the share: as many stamped images as the authors'
    repair=StampedSettings(epochs=5, lr=2e-3, share=0.02, held_out=0),
    black_white=spread_over(len(black_white_masks()), 6),
    colour=(0, 1, 2),
    beyond=(1, 1),
)

# Digits are black-and-white strokes: most of the 51 masks are parts of digits, and the black one is their ground.
_QUICK = Profile(
    source="mnist-5k",
    net="small-cnn",
    clean=TrainSettings(epochs=6, batch=64, lr=0.05),
    attack=TrainSettings(epochs=5, batch=64, lr=0.1, weight_decay=0),
    probability=0.1,
    mesa=MesaSettings(steps=300, batch=64, **_EQUAL),
    pixel=PixelSettings(runs=3),
    repair=StampedSettings(epochs=10, batch=64, lr=2e-3, share=0.1, held_out=0),
    mask=MaskSettings(steps=200),
    black_white=(34, 38),
    colour=(),
    beyond=(0, 0),
    evaluated=0.4,
)

TABLE = {"gpu": _GPU, "cpu": _CPU, "quick": _QUICK}

# Read off the authors' poster: ASR in percent, mean and worst trigger (before: the least successful).
Read = dict[str, dict[str, tuple[float, float | None]]]
PUBLISHED: Read = {
    "black-white": {
        "before": (98.7, 92.4),
        "oracle": (2.4, 3.7),
        "mesa-beta-0.9": (3.4, 5.9),
        "mesa-beta-0.8": (3.6, 9.1),
        "mesa-beta-0.5": (4.2, 9.0),
        "mesa-ensemble": (3.6, 8.2),
        "pixel-short": (10.5, 51.4),
    },
    "colour": {
        "mesa-beta-0.9": (2.04, None),
        "mesa-beta-0.8": (1.93, None),
        "mesa-beta-0.5": (1.77, None),
        "mesa-ensemble": (1.91, None),
        "pixel-short": (22.75, None),
    },
}

# The same for ten random-colour triggers on CIFAR-100; means alone.
PUBLISHED_CIFAR100 = {
    "mesa-beta-0.9": 1.42,
    "mesa-beta-0.8": 1.41,
    "mesa-beta-0.5": 1.56,
    "mesa-ensemble": 1.14,
    "pixel-short": 27.41,
}


def published(source: str) -> Read:
    """The authors' figures for these images: mean and worst by kind of trigger and arm; empty for other images."""
    if source == "cifar10":
        return PUBLISHED
    means = PUBLISHED_CIFAR100 if source == "cifar100" else {}
    return {"black-white": {}, "colour": {arm: (mean, None) for arm, mean in means.items()}}


_COMMON = (
    "Place: the authors draw one place per batch, rows and columns 0 to 28, which leaves the last one out; here every "
    "image has a place of its own, and all places are equally likely.",
    "Which of each of the 51 orbits the authors stamp is not known; here the mask of the smallest number. Their "
    "random colours are not published; here the seed draws them.",
    "Images of the target class are not stamped, neither by the attacker nor by the defender; the authors stamp them.",
    "SGD has Nesterov momentum; arithmetic is bf16 where the machine has it.",
    "Split: 80 % of the test images for the defence, 20 % for evaluation, the classes in equal parts; the authors "
    "draw 80 % without regard to classes.",
    "Statistics network: no rectifier on its output; its mean of exponentials is averaged in the gradient alone. The "
    "noise that blurs triggers is part of them, in the entropy as in the retraining.",
    "Ensemble: in retraining every image's trigger comes from one of the three generators, drawn with equal chances; "
    "the authors change generators by epoch.",
    "Pixel baseline: with the authors' budget, 31 steps of 128 images, and with 200 of 64; clipped after every step "
    "and not every epoch; ASR is averaged over its runs, as theirs is.",
    "Control arms, the net before the attack, and clean accuracy after repair are not in the slides; nor are the "
    "arms that stamp 20 % of the images, as `doorward repair` does unless told otherwise, and those after them.",
)
_OF_PROFILE = {
    "gpu": (
        "Clean net: ResNet-18 trained here, 30 epochs one-cycle; the public code that the authors took theirs from "
        "tells 93.02 %.",
    ),
    "cpu": (
        "ResNet-20 with 0.27 M weights in place of ResNet-18 with 11 M; 6 black-and-white masks, spread evenly over "
        "the list of 51, and 3 colours.",
        "Attack: rounds of 2 epochs, one-cycle up to a rate of 0.02, until the trigger succeeds on 95 % of training "
        "images, at most 4; the authors 10 epochs at 0.001.",
        "MESA: networks of width 128 and a rate of 0.001, moving average at 0.01; the authors 512, 0.0002 and 0.001.",
        "Repair: 5 epochs at a rate of 0.002 with 2 % of images stamped; the authors 10 at 0.001 with 1 %: as many "
        "stamped images, and as much movement.",
        "Pixel baseline: 3 runs per trigger; the authors 10.",
    ),
    "quick": (
        "A trial of the machinery: digits, a small net, two masks that digits seldom contain, 10 % of training images "
        "stamped by the attacker. Of 600 images for the defence 10 % are stamped, so that the retraining sees about as "
        "many triggers as the authors'. Nothing here compares with their figures.",
    ),
}


def deviations(profile: str) -> tuple[str, ...]:
    """In what a profile differs from the authors' experiment; settings changed by the user come on top."""
    return (*_COMMON, *_OF_PROFILE[profile])
