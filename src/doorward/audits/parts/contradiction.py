"""Images that contradict their label: a net that never saw them, nor their like, decides otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doorward.audits.parts.kept import Arrays, Kept
from doorward.audits.parts.suited import WELL, unseen_right
from doorward.audits.parts.trainer import Fits, Labels, Rows, Trainer
from doorward.cleansers.parts.carried import LARGEST
from doorward.cleansers.parts.clusters import CLUSTERS
from doorward.core.images import ImageSet

STAGE = "contradictions"
TRAININGS = CLUSTERS + 3
_CORE = 0.25  # of a class's images: a smaller cluster is no core
_LEFT, _LEFT_SHARE = 5, 0.1  # images of a class, and their share, that have to stay for the others to be judged
LEARNED = 0.65  # of the images that a net never saw, decided as labelled: fewer say nothing about single images


@dataclass(frozen=True, eq=False)
class Contradictions:
    """What nets without an image decide of it.

    Args:
        decisions: ``[N]``, of the last net, trained without everything that contradicted its label before.
        suspects: ``[N]``, images that the suspect model decides as labelled and that net does not.
        learned: whether such nets learn this set; where not, nobody is a suspect before groups are looked at
            (`doorward.audits.parts.groups`), and decisions are those of the first nets.
        looked: whether single images were looked at; where not, suspects are groups that carry a trigger.
        statistic: ``[K]``, how clearly a group of a class contradicts; None where single images are looked at.
    """

    decisions: Labels
    suspects: Rows
    learned: bool = True
    looked: bool = True
    statistic: NDArray[np.float64] | None = None


def contradictions(
    images: ImageSet,
    cluster: Labels,
    owned: Rows,
    trainer: Fits,
    seed: int,
    kept: Kept,
) -> Contradictions:
    """Find the images whose label nothing but images of their own kind supports.

    Poisoned images of a class carry a trigger and show another class; a net learns the label from the trigger alone.
    Trained without them it decides by what they show. Who they are is not known, but they lie together in feature
    space. So every class is divided into three clusters, and three nets are trained, each without one cluster of
    every class: what they decide of it is their first word. The cluster of a class that contradicts least is its
    core; a net that knows the cores alone decides on all the others, one without what contradicts that decides once
    more, and the last one is trained without what contradicted in either way.

    The principle is that of Jin, Sun and Rinard, ICLR 2023 (incompatible subsets: data that do not help to learn one
    another); ours uses the suspect model's features to divide the set, and six trainings.

    Args:
        images: the training set.
        cluster: ``[N]``, of every image; `doorward.cleansers.parts.clusters.divided`.
        owned: ``[N]``, where the suspect model decides as labelled.
        trainer: of the nets, which need not be of the suspect's kind.

    Fails when: poisoned images are no cluster and part of a class's core; labels are true (clean-label attacks); a
        class has rare images of its own kind, which contradict their label as poisoned ones do, without a trigger;
        the trainer's nets hardly learn.
    """
    labels = images.labels
    first = np.empty(len(images), np.int64)
    steps: dict[str, Callable[[], Arrays]] = {}
    for number in range(CLUSTERS):

        def leave_out(out: Rows = cluster == number, number: int = number) -> Arrays:
            return {"decisions": trainer.fit(images, ~out, seed + number).decide(images.pixels[out])}

        steps[f"without cluster {number + 1}"] = leave_out
    for number, made in enumerate(kept.several(STAGE, steps, trainer.at_once(images))):
        first[cluster == number] = made["decisions"]
    if (first == labels).mean() < LEARNED:
        return Contradictions(first, np.zeros(len(images), bool), learned=False)
    core = cores(cluster, first != labels, labels, len(images.classes))
    otherwise = _without(images, ~core, trainer, seed + 3, kept, "cores alone") != labels
    otherwise = otherwise & ~emptied(otherwise, labels)
    otherwise = _without(images, otherwise & owned, trainer, seed + 4, kept, "grown from the cores") != labels
    either = (otherwise | (first != labels)) & owned
    either &= ~emptied(either, labels)
    decisions = _without(images, either, trainer, seed + 5, kept, "without contradictions")
    otherwise = decisions != labels
    return Contradictions(decisions, otherwise & owned & ~_unknown(otherwise, labels))


def _unknown(otherwise: Rows, labels: Labels) -> Rows:
    """Images ``[N]`` of classes that a net decides mostly otherwise: it does not know them, and says nothing of them.

    A small net that sees a few images of each class now and then takes one class for another.
    """
    counts = np.bincount(labels)
    wrong = np.bincount(labels[otherwise], minlength=len(counts))
    return np.asarray((wrong > LARGEST * counts)[labels])


def emptied(out: Rows, labels: Labels) -> Rows:
    """Images ``[N]`` of classes of which too few would be left without those that are ``out``.

    A net that knows hardly any image of a class decides them all otherwise, whatever they show. So of such a class,
    often one of few images, nothing can be said.
    """
    counts = np.bincount(labels)
    left = counts - np.bincount(labels[out], minlength=len(counts))
    return np.asarray((left < np.maximum(_LEFT, _LEFT_SHARE * counts))[labels])


def learns(images: ImageSet, out: Rows, trainer: Trainer, seed: int, kept: Kept) -> bool:
    """Whether nets that are trained anew learn the set: one that knows half of it decides the other half.

    Args:
        out: images ``[N]`` that are left out of both halves.
    """
    return unseen_right(images, out, trainer, seed, kept, STAGE, "half of the set") >= WELL


def cores(cluster: Labels, otherwise: Rows, labels: Labels, classes: int) -> Rows:
    """The images ``[N]`` of every class's least contradicted cluster, without those that contradict."""
    found = np.zeros(len(labels), bool)
    for label in range(classes):
        own = labels == label
        large = [j for j in range(CLUSTERS) if (own & (cluster == j)).sum() >= max(1, _CORE * own.sum())]
        if large:
            best = min(large, key=lambda j: float(otherwise[own & (cluster == j)].mean()))
            found |= own & (cluster == best) & ~otherwise
    return found


def _without(images: ImageSet, out: Rows, trainer: Fits, seed: int, kept: Kept, name: str) -> Labels:
    """Decisions of a net trained without some images, on all of them."""

    def make() -> Arrays:
        return {"decisions": trainer.fit(images, ~out, seed).decide(images.pixels)}

    return np.asarray(kept.arrays(STAGE, name, make)["decisions"])
