"""What keeps an audit from a verdict, and what its reader has to know beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doorward.audits.gathering import Budget
from doorward.audits.parts.contradiction import LEARNED as KNOWN
from doorward.audits.parts.suited import Suited
from doorward.core.images import ImageSet
from doorward.core.order_test import FEWEST_CLASSES, OrderTest
from doorward.core.results import Level
from doorward.core.text import percent, quoted

LEARNED = 2.0  # times chance: a net below that has not learned the set
HARDLY = 0.5  # share of the set that a model decides as labelled, below which its features alone accuse nobody
FEW = 20  # images of a class below which little can be said of it


def undecided(images: ImageSet, accuracy: float, budget: Budget) -> str:
    """Why nothing can be decided of a set; empty where something can."""
    if budget.left_out:
        given = budget.minutes or 0.0
        return f"{given:g} {'minute is' if given == 1 else 'minutes are'} too few for it."
    if accuracy < LEARNED / len(images.classes):
        return (
            f"The model is right on {100 * accuracy:.0f} % of the set: it was not trained on it, or has not learned it."
        )
    present = int((images.counts() > 0).sum())
    if present < FEWEST_CLASSES:
        return f"{present} classes: too few to compare one with the others; the experiment alone decides."
    return ""


def no_witness(accuracy: float) -> str:
    """Why what the model's features say is no evidence without nets that learn the set; empty where it is."""
    if accuracy >= HARDLY:
        return ""
    return (
        f"The model is right on {100 * accuracy:.0f} % of the set: it has hardly learned it, and what lies apart in "
        "its features alone is no evidence."
    )


def at_most_suspicious(level: Level) -> Level:
    """What a class comes to where neither the model nor the nets of the experiment have learned the set.

    Pictures of one ground are a trigger to such nets, which go by little else; without these images it stops.
    """
    return "suspicious" if level in ("planted", "evidence") else level


def beside_nothing(nets: Suited, together: OrderTest | None, classes: Sequence[str]) -> tuple[str, ...]:
    """What "nothing found" rests on: how well the nets know the set, and which class is closest."""
    told = (
        f"The nets that the audit trains ({nets.trainer.net}) decide {percent(nets.unseen)} of images as labelled that "
        "they never saw"
    )
    told += "." if nets.unseen >= KNOWN else ": they hardly know the set, and see less for that."
    if together is None:
        return (told,)
    first = int(np.argmin(together.classes))
    return told, f"Closest to a finding is {quoted(classes[first])}, p = {together.classes[first]:.2g}."


def doubts(images: ImageSet, accuracy: float, given: bool) -> list[str]:
    """What a reader has to know beside the verdict."""
    made = []
    if given and accuracy < 0.5:
        made.append(
            f"the model is right on {100 * accuracy:.0f} % of the training set; it may not be the one trained on it"
        )
    counts = images.counts()
    few = [images.classes[k] for k in np.flatnonzero((counts > 0) & (counts < FEW)).tolist()]
    if few:
        made.append(f"fewer than {FEW} images: {', '.join(few[:6])}; little can be said of those classes")
    return made
