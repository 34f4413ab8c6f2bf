"""The section of a certify run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from doorward.core.errors import DoorwardError
from doorward.core.results import Count, Judgement, Number, RateRecord, Record
from doorward.core.stats import Rate
from doorward.core.text import count, extent, listing, name, number, percent, plural
from doorward.reports import charts
from doorward.reports.run_files import RunFolder
from doorward.reports.sections import Cell, Section

if TYPE_CHECKING:
    from doorward.certification.certificate import Certificate

Curve = list[tuple[int, float]]

_LIMITS = (
    ("Other changes", "Adding or removing training images is not a change of pixels and labels, and is not covered."),
    ("Another classifier", "It holds for the certified procedure, not for one network trained on the same images."),
    ("Larger budgets", "Past the largest certified radius nothing is known, neither success nor failure of an attack."),
    ("A backdoor already there", "It bounds what a change can do to the result; it does not say that there was none."),
)


class CertifyResults(Record):
    """``results`` of a certify run."""

    certified_accuracy: dict[Count, RateRecord | float] = Field(min_length=1)
    clean_accuracy: RateRecord | float | None = None
    abstained: Count | Annotated[float, Field(ge=0, le=1)] = 0  # images, or a share of them
    trials: Count | None = None
    trials_per_second: Number = None
    learner: str = ""
    guarantee: str = ""


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and its certificate, and lay out its section; it has no thumbnails."""
    results = run.results(CertifyResults)
    certificate = _certificate(run)
    curve = [(radius, _share(value, run)) for radius, value in sorted(results.certified_accuracy.items())]
    clean = None if results.clean_accuracy is None else _share(results.clean_accuracy, run)
    tested = _tested(results, certificate)
    joint = _joint(certificate)
    radius, share = _headline_point(curve)
    learner = results.learner or str(run.manifest.settings.get("learner", ""))
    subject = str(run.manifest.settings.get("source") or run.name)
    words = (
        f"Certified accuracy by radius: {percent(curve[0][1])} at {curve[0][0]}, {percent(curve[-1][1])} at "
        f"{curve[-1][0]}"
    )
    return Section(
        run=run,
        subject=subject,
        verdict=Judgement(
            level="certificate",
            headline=_headline(radius, share),
            reasons=tuple(_reasons(results, tested, joint, radius)),
        ),
        template="certify.html",
        context={
            "guarantee": guarantee(results, certificate, radius, share),
            "facts": _facts(results, curve, clean, tested, learner),
            "chart": charts.step_curve(curve, clean, f"without an attacker: {percent(clean)}", words, joint),
            "joint": bool(joint),
            "curve": [(r, s, _extent(s, tested), dict(joint).get(r)) for r, s in curve],
            "limits": _LIMITS,
        },
        overview={
            "Images": Cell(name(subject)),
            "Learner": Cell(name(learner or "–")),
            "Accuracy": Cell(percent(clean)),
            "Certified": Cell(percent(share), f"at radius {radius}", "proven"),
            "Trials": Cell(count(results.trials) if results.trials else "exact"),
        },
        inputs=_inputs(certificate),
    )


def _certificate(run: RunFolder) -> Certificate | None:
    """The certificate beside the run's summary, its content checked against its hash."""
    path = run.path / "certificate.json"
    if not path.exists():
        return None
    from doorward.certification.certificate import Certificate

    return Certificate.load(path)


def _inputs(certificate: Certificate | None) -> dict[str, str]:
    if certificate is None:
        return {}
    return {"training images": certificate.train_sha256, "test images": certificate.test_sha256}


def _joint(certificate: Certificate | None) -> Curve:
    """Certified accuracy by radius where all statements hold together; empty when that adds nothing."""
    if certificate is None or certificate.truth is None or not certificate.trials:
        return []
    return [(radius, rate.value) for radius, rate in enumerate(certificate.curve(joint=True))]


def _share(value: RateRecord | float, run: RunFolder) -> float:
    share = value.value if isinstance(value, RateRecord) else value
    if share is None or not 0 <= share <= 1:
        raise DoorwardError(f"{run.path / 'run.json'}: accuracy {share}; expected a share from 0 to 1")
    return share


def _extent(share: float, tested: int | None) -> str:
    """How far the share could be off for other test images of the same kind: Clopper-Pearson, 95 %."""
    return extent(*Rate(round(share * tested), tested).interval) if tested else ""


def _headline_point(curve: Curve) -> tuple[int, float]:
    """The largest radius at which half of the images are certified; radius 1 (or the last) when none is."""
    held = [point for point in curve if point[0] >= 1 and point[1] >= 0.5]
    return held[-1] if held else next((p for p in curve if p[0] >= 1), curve[-1])


def _headline(radius: int, share: float) -> str:
    return f"Certified: {percent(share)} of the test images stay right under any {plural(radius, 'change')}"


def _tested(results: CertifyResults, certificate: Certificate | None) -> int | None:
    """How many test images there are."""
    if certificate is not None:
        return len(certificate)
    rates = [v for v in results.certified_accuracy.values() if isinstance(v, RateRecord)]
    return rates[0].trials if rates and rates[0].trials else None


def guarantee(results: CertifyResults, certificate: Certificate | None, radius: int, share: float) -> str:
    """One sentence: what is guaranteed, and against whom; the run's own words when it brings some."""
    if results.guarantee:
        return results.guarantee
    if certificate is None:
        places = "the parts that certificate.json lists"
        sure = "for each image by itself, with the confidence that certificate.json states"
    else:
        places = listing([b.name for b in certificate.blocks]) if certificate.blocks else _all_places()
        sure = f"with confidence {100 * (1 - float(certificate.alpha)):g} % for each image by itself"
    if not results.trials:
        sure = "with certainty, without sampling"
    return (
        f"For {percent(share)} of the test images, no attacker who changes at most {plural(radius, 'value')} in all "
        f"among {places} can change the right prediction of this training and prediction procedure, even one who knows "
        f"all images and the procedure and chooses the changes for that very test image; this holds {sure}"
        + (", over the procedure’s own random draws, which the attacker must not know." if results.trials else ".")
    )


def _all_places() -> str:
    from doorward.certification.certificate import BLOCKS

    return listing(list(BLOCKS))


def _reasons(results: CertifyResults, tested: int | None, joint: Curve, radius: int) -> list[str]:
    reasons = []
    if joint:
        together = percent(dict(joint).get(radius, 0.0))
        reasons.append(f"All statements jointly, with the same confidence: {together} at this budget.")
    if results.abstained:
        held = results.abstained
        shown = plural(held, "image") if isinstance(held, int) else percent(held)
        reasons.append(f"The procedure abstains on {shown}; an abstention never counts as right.")
    if tested:
        reasons.append(
            f"Measured on {plural(tested, 'test image')}; each radius is proven for its image, not estimated."
        )
    return reasons


def _facts(
    results: CertifyResults, curve: Curve, clean: float | None, tested: int | None, learner: str
) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures that stand under the headline."""
    largest = max((radius for radius, share in curve if share > 0), default=0)
    facts = [
        ("Accuracy", percent(clean), "without an attacker"),
        ("Largest radius", count(largest), "at which any image is certified"),
    ]
    if tested:
        facts.append(("Test images", count(tested), ""))
    if results.trials:
        speed = f"{number(results.trials_per_second)} a second" if results.trials_per_second else ""
        facts.append(("Trials", count(results.trials), speed))
    if learner:
        facts.append(("Learner", name(learner), ""))
    return facts
