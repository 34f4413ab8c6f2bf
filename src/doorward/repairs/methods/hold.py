"""Retrain around the triggers, look again, go on until the target stands out no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.methods import method
from doorward.core.triggers import Stamp
from doorward.repairs.parts.retraining import SHARE_AROUND, families, retrained
from doorward.repairs.parts.standing import INVERSIONS, Standing, enough, look, standings
from doorward.repairs.parts.tuning import TuneSettings, divide
from doorward.repairs.repaired import Repaired, Step

_NEXT_SEED = 101  # from a round's inversion to the next one's; `doorward.repairs.proof` takes yet another


class HoldSettings(TuneSettings):
    """Settings of a repair that looks again. Those of the training are `retrain`'s, with batches of half the size.

    Of a few hundred images, batches of 64 make twice the steps: on digits (400 images to work on, a white 4 x 4 square,
    a development net) one round leaves 2.0 and 2.7 % success over two seeds, batches of 128 leave 7.4 and 5.8 %.
    Where images are few, ``shift`` and ``keep`` (`doorward.repairs.parts.tuning.kept`) spare clean accuracy: on digits
    (400 images, development nets) half a point to a point, on photographs more.
    """

    batch: int = Field(64, ge=2, description="images per step")
    shift: int = Field(1, ge=0, description="largest shift in pixels, each direction")
    keep: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the loss for the net's own answers on the images unstamped; unless given 2.5 times the "
        "share of them that it decides wrongly, at most 0.5",
    )
    rounds: int = Field(3, ge=1, description="trainings at most; between two of them the copy is inverted afresh")
    level: float = Field(0.05, gt=0, lt=1, description="p-value up to which the target stands out")
    share: float = Field(SHARE_AROUND, gt=0, le=1, description="chance that an image of a batch is stamped")
    search: int = Field(400, ge=1, description="steps of each inversion at most")


@method("repair", "hold", settings=HoldSettings, given={"classifier", "clean_images", "triggers", "seed"})
def hold(
    classifier: Classifier,
    clean_images: ImageSet,
    triggers: Mapping[int, Sequence[Stamp]],
    s: HoldSettings,
    *,
    seed: int,
) -> Repaired:
    """Retrain around the triggers and invert again, round by round, until the target stands out no more.

    Qiao, Yang and Li, NeurIPS 2019: an inverted trigger is one of many that work, and a net that forgets it may keep
    the attacker's. A round trains the classifier as it was given on images under draws around all triggers so far
    (`doorward.repairs.parts.around`), truly labelled. Then the copy is inverted afresh (`mask` and `universal`, another
    seed). Where a target still stands out, its new triggers join the others and the next round begins from the start.

    The rule to stop: for every target and inversion the p-value among the classes is above ``level``, and another
    class has a smaller trigger. Its error: of K classes without a backdoor one is the smallest with chance 1/K per
    inversion, so a round too many is run about that often; it costs clean accuracy (about a point on digits). A
    backdoor whose trigger is no smaller than those of clean classes (a warp, a faint blend) ends it too early.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels.
        triggers: target class to stamps, as for `retrain`.
        seed: of the split, the order of images, the stamps and the inversions.

    Returns: the classifier; the record has one step per round with held-out accuracy and what the inversion said.
        With fewer than 4 classes, or too few images to invert, there is one round.

    Raises:
        DoorwardError: images or triggers that do not fit the classifier, or weights that diverged.

    Fails when: no inversion sees the attacker's trigger, at the start or after a round.
    """
    stamps = {target: list(found) for target, found in triggers.items() if found}
    fitted, _ = divide("hold", classifier, clean_images, s.held_out, seed)
    steps: list[Step] = []
    rounds: list[dict[str, object]] = []
    warnings: tuple[str, ...] = ()
    for number in range(1, s.rounds + 1):
        count = sum(map(len, stamps.values()))
        targets = families("hold", stamps, classifier)
        done = f"round {number}: {s.epochs} epochs around {count} triggers, {100 * s.share:g} % of images stamped"
        repaired = retrained("hold", classifier, clean_images, targets, s, s.share, seed=seed, done=done)
        tries, warnings = repaired.steps[int(bool(steps)) : -1], repaired.warnings
        said = _look(repaired.classifier, fitted, sorted(stamps), s, seed + _NEXT_SEED * number)
        still = sorted({one.label for one in said if one.out(s.level)})
        told = "; ".join(f"class {one.label}: {one}" for one in said)
        steps += [*tries, replace(repaired.steps[-1], name=f"{done}; {told}" if told else done)]
        accuracy = measure_accuracy(repaired.classifier, fitted).value
        rounds.append({"triggers": count, "accuracy": accuracy, "standing": [_plain(one) for one in said]})
        if not still:
            break
        if number == s.rounds:
            warnings += (f"after {number} rounds the target still stands out, or has the smallest trigger",)
        for one in said:
            if one.label in still and one.trigger is not None:
                stamps[one.label].append(one.trigger)
    details = {
        **repaired.details,
        "rounds": rounds,
        "seeds": [seed + _NEXT_SEED * n for n in range(1, len(rounds) + 1)],
    }
    return Repaired(repaired.classifier, tuple(steps), details, warnings)


def _look(
    classifier: Classifier, images: ImageSet, targets: Sequence[int], s: HoldSettings, seed: int
) -> list[Standing]:
    """What a fresh inversion says of every target; nothing where it could not compare classes."""
    if not enough(classifier, images):
        return []
    found = look(classifier, images, seed, {name: {"steps": s.search} for name in INVERSIONS})
    return [one for target in targets for one in standings(found, target)]


def _plain(one: Standing) -> dict[str, object]:
    return {k: v for k, v in vars(one).items() if k != "trigger"}
