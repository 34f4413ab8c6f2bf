"""What the stages write into their runs."""

from __future__ import annotations

from doorward.core.results import Count, RateRecord, Record


class SplitRecord(Record):
    """``results`` of the division of the test images: how many a defence has, how many it is measured on."""

    search: Count
    evaluation: Count


class TruthScore(Record):
    """Clean accuracy, and success of the attacker's own trigger, on images that no defence sees."""

    accuracy: RateRecord
    asr: RateRecord


class AttackedRecord(Record):
    """``results`` of an attack: the net it starts from, the backdoored one, and how many rounds it took."""

    clean: TruthScore
    before: TruthScore
    rounds: Count


class ArmScore(TruthScore):
    """``results`` of a repair; not ``repaired`` where the defence's verdict found nothing to repair."""

    told: tuple[str, ...] = ()
    repaired: bool


class SamplesRecord(Record):
    """``results`` of the sampled distribution: beta of every level."""

    levels: tuple[float, ...]
    images_per_trigger: Count
