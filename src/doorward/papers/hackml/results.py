"""What the stages write into their runs."""

from __future__ import annotations

from typing import Literal

from doorward.core.results import Count, Number, RateRecord, Record


class FacesRecord(Record):
    """``results`` of the division of the faces; ``images``: of all people."""

    source: str
    people: Count
    images: Count


class NetRecord(Record):
    """``results`` of a trained net: accuracy on held-out faces, success of every trigger by itself."""

    accuracy: RateRecord
    images: Count
    asr: tuple[RateRecord, ...] = ()


class TargetEvidence(Record):
    """One suspect, as `doorward.inversion.judge.evidence.Evidence` has it."""

    label: Count
    p_value: Number = None
    size: float
    share: float
    strength: RateRecord
    likeness: Number = None
    transfer: RateRecord | None = None
    reading: str


class EvidenceRecord(Record):
    """``results`` of the weighing, planted backdoors first."""

    targets: tuple[TargetEvidence, ...]


class ArmScore(Record):
    """One arm against the truth; ``each``: success of every trigger by itself."""

    name: str
    role: Literal["given", "repair", "control", "oracle"]
    clean_accuracy: RateRecord
    asr: RateRecord
    each: tuple[RateRecord, ...] = ()
    seconds: float


class FaceRepairRecord(Record):
    """``results`` of the repair; ``targets``: repaired classes; ``guard``: its rates, None without one."""

    arms: tuple[ArmScore, ...]
    targets: tuple[Count, ...]
    guard: dict[str, RateRecord] | None = None


class ScreenScore(Record):
    """One screen on held-out faces, clean and stamped; ``false``, ``true``: the ROC curve."""

    screen: str
    refused: Count
    clean: Count
    caught: Count | None = None
    stamped: Count | None = None
    auroc: Number = None
    false: tuple[float, ...] = ()
    true: tuple[float, ...] = ()


class ScreensRecord(Record):
    """``results`` of the screens."""

    screens: tuple[ScreenScore, ...]
