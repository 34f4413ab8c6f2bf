"""Does the input range fit the net? The commonest cause of failed inversions, found by the net's own answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.core.stats import Rate

_MOST = 512  # images looked at
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


@dataclass(frozen=True)
class Fit:
    """How well the images fit the net under one convention.

    Args:
        convention: in the words of the command line.
        accuracy: share of labels that the net gives; None without labels.
        information: nats that the net's decisions tell about the images: entropy of the mean answer minus mean
            entropy of the answers. Near 0 when all images get one answer, or none a definite one.
    """

    convention: str
    accuracy: Rate | None
    information: float


def alternatives(channels: int) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Conventions in common use, as mean and standard deviation on the scale [0, 1]."""
    found: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "--range 0,1": ((0.0,), (1.0,)),
        "--range 0,255": ((0.0,), (1 / 255,)),
        "--range -1,1": ((0.5,), (0.5,)),
    }
    if channels == 3:
        for mean, std in (_IMAGENET, _CIFAR):
            found[f"--mean {','.join(map(str, mean))} --std {','.join(map(str, std))}"] = (mean, std)
    else:
        found["--mean 0.1307 --std 0.3081"] = ((0.1307,), (0.3081,))
    return found


@torch.inference_mode()
def measure_fit(classifier: Classifier, images: ImageSet, labelled: bool, convention: str) -> Fit:
    """How well a classifier's conventions fit clean images; the first 512 of a fixed random order."""
    rows = np.random.default_rng(0).permutation(len(images))[:_MOST]
    answers = classifier.logits(to_float(images.pixels[rows], classifier.device)).softmax(1)
    hits = int((answers.argmax(1).cpu().numpy() == images.labels[rows]).sum())
    mean = answers.mean(0)
    information = float(torch.special.entr(mean).sum() - torch.special.entr(answers).sum(1).mean())
    return Fit(convention, Rate(hits, len(rows)) if labelled else None, information)


def check_conventions(
    classifier: Classifier, images: ImageSet, *, labelled: bool, name: str, refuse: bool = True
) -> tuple[str, ...]:
    """Refuse a mean, deviation or range that does not fit, or warn of it without ``refuse``; returns warnings.

    With labels: refused when another common convention is more accurate beyond chance (their 99.9 % intervals do not
    meet) and better than guessing; warned of when the net is hardly better than guessing. Without: refused when the
    net's decisions tell less than a third of what they tell under another convention.

    Raises:
        DoorwardError: one line with the convention that fits.
    """
    was_training = classifier.net.training
    classifier.net.eval()
    given = measure_fit(classifier, images, labelled, "as given")
    guessing = min(0.5, 2 / len(classifier.classes))
    if given.accuracy is not None and given.accuracy.interval[0] >= guessing and _unbeatable(given.accuracy):
        classifier.net.train(was_training)
        return ()  # what the other conventions come to could change nothing
    others = [
        measure_fit(replace(classifier, mean=mean, std=std), images, labelled, words)
        for words, (mean, std) in alternatives(classifier.shape[0]).items()
    ]
    classifier.net.train(was_training)
    best = max(others, key=lambda f: f.information if f.accuracy is None else f.accuracy.hits)
    if given.accuracy is None or best.accuracy is None:
        if given.information < best.information / 3:
            return _told(
                refuse,
                f"{name}: its decisions tell {given.information:.2f} nats about the images with the input range given, "
                f"{best.information:.2f} with {best.convention}; expected the range the net was trained with",
            )
        return ()
    low = replace(best.accuracy, confidence=0.999).interval[0]
    if low > max(guessing, replace(given.accuracy, confidence=0.999).interval[1]):
        return _told(
            refuse,
            f"{name}: decides {100 * given.accuracy.value:.0f} % of {images.name} as labelled with the input range "
            f"given, {100 * best.accuracy.value:.0f} % with {best.convention}, the best of those tried; expected the "
            "range that it was trained with",
        )
    if given.accuracy.interval[0] < guessing:
        told = f"decides {given.accuracy} % of {images.name} as labelled, hardly more than by guessing"
        return (f"{told}; no verdict on it says much until --size, --mean, --std, --range and the labels fit",)
    return ()


def _unbeatable(accuracy: Rate) -> bool:
    """Whether even a convention without a mistake would not be more accurate beyond chance."""
    perfect = Rate(accuracy.trials, accuracy.trials, 0.999)
    return replace(accuracy, confidence=0.999).interval[1] >= perfect.interval[0]


def _told(refuse: bool, message: str) -> tuple[str, ...]:
    if refuse:
        raise DoorwardError(message)
    return (message,)
