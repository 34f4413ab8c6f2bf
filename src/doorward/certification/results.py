"""The figures of a certificate in ``run.json``: one definition for writer, reader, report and papers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from doorward.certification.certificate import Certificate
from doorward.core.results import Count, Judged, Judgement, Number, Record
from doorward.core.text import percent, plural

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class AttackSearch(Record):
    """How far the radii are from the truth; ``gaps``: images by smallest attack found - 1 - certified radius."""

    attacked: Count
    gaps: dict[int, Count]


class CertifyRecord(Judged):
    """``results`` of a certify run.

    Args:
        certified_accuracy, intervals: by radius: share of the test images, and its 95 % interval.
        jointly_certified_accuracy: where all statements hold together.
        abstained: images without a certain label.
        trials: 0 for a deterministic method.
    """

    learner: str = ""
    test_images: Count
    certified_accuracy: dict[Count, Share] = Field(min_length=1)
    intervals: dict[Count, tuple[Share, Share]]
    jointly_certified_accuracy: dict[Count, Share]
    clean_accuracy: Share
    abstained: Count
    trials: Count
    trials_per_second: Number = None
    attack_search: AttackSearch | None = None

    @property
    def joint(self) -> dict[int, float]:
        """Jointly certified accuracy; empty where that adds nothing, since nothing was drawn."""
        return self.jointly_certified_accuracy if self.trials else {}


def summarise(
    certificate: Certificate, learner: str, rate: float | None, search: AttackSearch | None = None
) -> CertifyRecord:
    """The figures of a certificate.

    Args:
        rate: trials per second.
        search: attacks that were found on the certified images.
    """
    curve = certificate.curve()
    certified = {radius: value.value for radius, value in enumerate(curve)}
    joint = {radius: value.value for radius, value in enumerate(certificate.curve(joint=True))}
    images, abstained = len(certificate), certificate.abstained()
    return CertifyRecord(
        judgement=judge(certified, joint if certificate.trials else {}, abstained, images),
        learner=learner,
        test_images=images,
        certified_accuracy=certified,
        intervals={radius: value.interval for radius, value in enumerate(curve)},
        jointly_certified_accuracy=joint,
        clean_accuracy=certificate.clean_accuracy().value,
        abstained=abstained,
        trials=certificate.trials,
        trials_per_second=None if rate is None else round(rate, 1),
        attack_search=search,
    )


def headline_point(certified: dict[int, float]) -> tuple[int, float]:
    """The largest radius at which half of the images are certified; radius 1 (or the last) when none is."""
    curve = sorted(certified.items())
    held = [point for point in curve if point[0] >= 1 and point[1] >= 0.5]
    return held[-1] if held else next((p for p in curve if p[0] >= 1), curve[-1])


def judge(certified: dict[int, float], joint: dict[int, float], abstained: int, images: int) -> Judgement:
    """What a certificate says in one line, and what to know beside it."""
    radius, share = headline_point(certified)
    reasons = []
    if joint:
        together = percent(joint.get(radius, 0.0))
        reasons.append(f"All statements jointly, with the same confidence: {together} at this budget.")
    if abstained:
        shown = plural(abstained, "image")
        reasons.append(f"The procedure abstains on {shown}; an abstention never counts as right.")
    if images:
        reasons.append(
            f"Measured on {plural(images, 'test image')}; each radius is proven for its image, not estimated."
        )
    return Judgement(
        level="certificate",
        headline=f"Certified: {percent(share)} of the test images stay right under any {plural(radius, 'change')}",
        reasons=tuple(reasons),
    )
