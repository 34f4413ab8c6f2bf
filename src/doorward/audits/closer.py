"""A closer look at some classes: who their suspects are, the experiment, and whom it shows to be poisoned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from doorward.audits.experiment import Experiment, experiment
from doorward.audits.parts.afterwards import unlearned
from doorward.audits.parts.contradiction import Contradictions
from doorward.audits.parts.copies import Copies
from doorward.audits.parts.grow import STAGE as LOCATE
from doorward.audits.parts.grow import among_their_like, grow
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import Fits, Labels, Rows, Trainer
from doorward.audits.parts.transfer import transferred
from doorward.cleansers.parts.carried import bearing
from doorward.cleansers.parts.likeness import FEWEST, alike, as_stamped
from doorward.cleansers.parts.stamping import stamped, success, tried_on
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp, Trigger

OTHERWISE = 0.5  # probability that an image is not what its label says, of those like the sure ones
UNSURE = 0.2  # the same of an image of a group that an experiment shows to be poisoned
_ASKED = 300  # pictures that a trigger is tried on
_WORKS = 0.4  # success on the model from which nets should learn a trigger
_LEARNT = 0.5  # share of that, from which they have
Named = dict[str, Stamp]


class Case(NamedTuple):
    """What a closer look at some classes needs.

    Args:
        triggers: of those classes.
        again: see `experiment`.
        flagged: images ``[N]`` that trigger transfer itself flags (`doorward.cleansers.methods.transfer`).
        level: p-value up to which arms show something, all classes together.
    """

    images: ImageSet
    model: Classifier
    features: NDArray[np.float32]
    owned: Rows
    found: Contradictions
    triggers: dict[int, Named]
    trainer: Trainer
    again: tuple[int, ...]
    flagged: Rows
    seed: int
    kept: Kept
    level: float = 0.05

    @property
    def grouped(self) -> bool:
        """Whether suspects are known by their group alone: nets do not learn the set well enough for single ones."""
        here = np.isin(self.images.labels, list(self.triggers))
        return not self.found.learned and bool((self.found.suspects & here).any())

    def patches(self, tried: Experiment) -> dict[int, Trigger]:
        """The triggers of an experiment that are laid over images and were taken from them."""
        first = {k: list(self.triggers[k].items())[arms.trigger] for k, arms in tried.arms.items() if self.triggers[k]}
        return {
            k: s for k, (how, s) in first.items() if how == "transfer" and isinstance(s, Trigger) and s.blend == "alpha"
        }


def looked_into(case: Case) -> tuple[Experiment, Rows]:
    """Locate the suspects, make the experiment; and which images ``[N]`` it shows to be poisoned."""
    images, model, features, owned, found, triggers, trainer, again, flagged, seed, kept, level = case
    nets: Fits
    if case.grouped:
        suspects = (found.suspects | alike(features, found.suspects, images.labels)) & owned
        nets = trainer.longer()
        tried = experiment(images, suspects, stamps_of(triggers), owned, nets, seed + 20, kept, again, level)
        tried = _on_copies(case, suspects, tried)
        return tried, shown_in_groups(images, features, tried, suspects, case.patches(tried), flagged) & owned
    nets = trainer if found.learned else Copies(model)
    found = grow(images, model, features, found, owned, stamps_of(triggers), nets, seed + 10, kept)
    shared = transferred(images, found.suspects, found.decisions)
    for k in triggers:
        if k in shared:
            triggers[k]["transfer"] = shared[k]
    if not found.learned:
        nets = _forgetting(case, found.suspects, stamps_of(triggers))
    tried = experiment(images, found.suspects, stamps_of(triggers), owned, nets, seed + 20, kept, again, level)
    if found.learned:
        shown = {k for k, arms in tried.arms.items() if arms.trigger_stops(level) or arms.suspects_teach(level)}
        tried = _on_copies(case, found.suspects, tried, shown)
    counted = {k: stamps_of(triggers)[k][arms.trigger :][:1] for k, arms in tried.arms.items()}
    marked = as_stamped(images, model, features, found.suspects, counted, seed + 30)
    out = shown_poisoned(features, tried, marked, images.labels, owned)
    return tried, out | (taught(tried, found.suspects, images.labels, level) & owned)


def _on_copies(case: Case, suspects: Rows, tried: Experiment, shown: Collection[int] = ()) -> Experiment:
    """The same with copies of the model, for classes whose trigger works on it and was not learnt by nets made anew.

    Small nets that see a large set a few times learn a patch, and not a faint picture over the whole image, nor a patch
    that moves on a dozen images of a small set: what they do without the suspects then says nothing. The model has
    learnt it. Copies that were made to forget it are trained on with the suspects, and without them.

    Args:
        shown: classes of which the nets made anew show something so or so.
    """
    images, model, triggers, seed = case.images, case.model, stamps_of(case.triggers), case.seed
    unlearnt = dict[int, Sequence[Stamp]]()
    for label in sorted((set(tried.arms) & set(case.again)) - set(shown)):
        arms = tried.arms[label]
        if not len(arms.control):  # there is no trigger
            continue
        pictures = tried_on(images, label, suspects, seed, _ASKED)
        works = success(model.predict, stamped(pictures, triggers[label][arms.trigger], seed), label)
        if works >= _WORKS and float(arms.control.mean()) < _LEARNT * works:
            unlearnt[label] = triggers[label]
    if not unlearnt:
        return tried
    nets, kept = _forgetting(case, suspects, unlearnt), case.kept.below("copies")
    again = experiment(images, suspects, unlearnt, case.owned, nets, seed + 25, kept, tuple(unlearnt), case.level)
    return tried.replaced(again, images.labels)


def _forgetting(case: Case, suspects: Rows, stamps: Mapping[int, Sequence[Stamp]]) -> Copies:
    """Makes copies of the model that begin without the triggers."""
    with case.kept.timed(LOCATE):
        case.kept.tell(LOCATE, "a copy without the trigger")
        return Copies(unlearned(case.images, case.model, suspects, stamps, case.seed + 15))


def shown_in_groups(
    images: ImageSet,
    features: NDArray[np.float32],
    tried: Experiment,
    suspects: Rows,
    patches: Mapping[int, Trigger],
    flagged: Rows,
) -> Rows:
    """Images ``[N]`` of suspected groups, or like them, that an experiment shows to be poisoned.

    Where nets are right on half of what they never saw, their word is no proof of a single image; the group's is. So
    whoever looks to the model as pictures under the group's trigger do stays, whatever the nets say. To these come the
    images that bear the patch, where most suspects bear one; otherwise those who are like one another in feature space,
    without images that nets which do not know the group are sure to be what their label says.

    Args:
        flagged: images ``[N]`` that look to the model as pictures under their group's trigger do.
    """
    found = among_their_like(features, suspects, images.labels) & ((tried.score >= UNSURE) | ~suspects)
    for label, patch in patches.items():
        own, bears = images.labels == label, bearing(images, label, patch)
        if (bears & suspects).sum() >= (suspects & own).sum() / 2:
            found = np.where(own, bears, found)
    return found | (flagged & suspects)


def shown_poisoned(features: NDArray[np.float32], tried: Experiment, marked: Rows, labels: Labels, owned: Rows) -> Rows:
    """Images ``[N]`` that an experiment shows to be poisoned.

    First those that nets without suspects decide otherwise for sure, and that look to the suspect model as stamped
    pictures do (``marked``; in a class where hardly any does, those that are like one another). Then whoever is like
    these, and is decided otherwise, though less clearly.
    """
    sure = tried.poisoned & marked
    few = [k for k in np.unique(labels[tried.poisoned]).tolist() if (sure & (labels == k)).sum() < FEWEST]
    sure |= among_their_like(features, tried.poisoned & np.isin(labels, few), labels)
    return sure | (alike(features, sure, labels) & (tried.score > OTHERWISE) & owned)


def taught(tried: Experiment, suspects: Rows, labels: Labels, level: float) -> Rows:
    """Suspects ``[N]`` of classes asked of copies, that teach each other's label and are decided otherwise without.

    There the found trigger is but a shadow of the attacker's, such as the mean of a patch that moves, and says little
    of who bears it.
    """
    classes = [k for k in tried.copied if tried.arms[k].suspects_teach(level)]
    return suspects & np.isin(labels, classes) & (tried.score > OTHERWISE)


def stamps_of(triggers: Mapping[int, Named]) -> dict[int, Sequence[Stamp]]:
    """A class's triggers without what found them."""
    return {k: list(named.values()) for k, named in triggers.items()}
