"""From some suspects to all of them: their like are left out too, and triggers that were found are unlearnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from doorward.audits.parts.contradiction import Contradictions
from doorward.audits.parts.kept import Arrays, Kept
from doorward.audits.parts.trainer import Fits, Rows
from doorward.cleansers.parts.likeness import FEWEST, alike, as_stamped, discriminant
from doorward.cleansers.parts.stamping import stamped
from doorward.cleansers.parts.threads import one_thread
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp
from doorward.repairs.parts.around import around
from doorward.repairs.parts.stamping import Mixed

STAGE = "locate"
ROUNDS = 4
_STAMPED = 0.25  # of the images that stay, once more under draws around a trigger
_ENOUGH = 0.03  # of the suspects: a round that changes fewer is the last


def grow(
    images: ImageSet,
    model: Classifier,
    features: NDArray[np.float32],
    found: Contradictions,
    owned: Rows,
    triggers: Mapping[int, Sequence[Stamp]],
    trainer: Fits,
    seed: int,
    kept: Kept,
) -> Contradictions:
    """Look again at the classes in ``triggers``, round by round, until their suspects change no more.

    The few poisoned images that are no suspects yet teach a net the trigger, so that it finds no others. A round
    leaves out, beside the suspects, all images of their class that lie on their side in the suspect model's features
    (a linear discriminant), and shows a quarter of what stays once more with the triggers on them, truly labelled,
    so that a net cannot learn the label from them. Whom that net contradicts is a suspect in the next round.
    The first round also leaves out images of a class that look to the suspect model as pictures with its trigger do.

    Args:
        model: the suspect.
        triggers: class to triggers that work; an empty sequence where none does.

    Fails when: the first suspects are few of many poisoned images, and no trigger was found.
    """
    labels = np.array(sorted(triggers), np.int64)
    own = np.isin(images.labels, labels)
    suspects, decisions = found.suspects & own, found.decisions.copy()
    marked = as_stamped(images, model, features, suspects, triggers, seed)
    for number in range(ROUNDS):
        out = suspects | (marked if number == 0 else alike(features, suspects, images.labels))

        def make(out: Rows = out, number: int = number) -> Arrays:
            more = shown(images, ~out, triggers, seed + number)
            return {"decisions": trainer.fit(images, ~out, seed + number, more).decide(images.pixels[own])}

        decisions[own] = kept.arrays(STAGE, f"round {number + 1}", make)["decisions"]
        before, suspects = suspects, (decisions != images.labels) & owned & own
        if (before ^ suspects).sum() <= _ENOUGH * max(1, before.sum()):
            break
    return replace(found, decisions=decisions, suspects=np.where(own, suspects, found.suspects))


def among_their_like(features: NDArray[np.float32], flagged: Rows, labels: NDArray[np.int64]) -> Rows:
    """The flagged images ``[N]`` that the other flagged ones of their class are like, by a discriminant without them.

    Hard images of a class contradict their label too, each in its own way; poisoned ones share the trigger's features.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    found = flagged.copy()
    for label in np.unique(labels[flagged]):
        rows = np.flatnonzero(labels == label)
        inside = flagged[rows]
        folds = int(min(10, inside.sum(), len(rows) - inside.sum()))
        if folds < FEWEST:
            continue
        with one_thread():
            split = StratifiedKFold(folds, shuffle=True, random_state=0)
            side = cross_val_predict(discriminant(), features[rows], inside, cv=split, method="decision_function")
        found[rows] = inside & (side > 0)
    return found


def shown(images: ImageSet, stay: Rows, triggers: Mapping[int, Sequence[Stamp]], seed: int) -> ImageSet | None:
    """A quarter of the images that stay, under the triggers; None without any."""
    every = [tuple(stamps) for _, stamps in sorted(triggers.items()) if stamps]
    if not every:
        return None
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(stay)
    parts = np.array_split(rng.permutation(rows)[: int(_STAMPED * len(rows))], len(every))
    made = [stamped(images.pixels[p], Mixed(tuple(around(s))), seed) for p, s in zip(parts, every, strict=True)]
    return ImageSet(np.concatenate(made), images.labels[np.concatenate(parts)], images.classes, images.name)
