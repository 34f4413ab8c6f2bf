"""The section of a certify run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.certification.results import CertifyRecord, headline_point
from doorward.core.text import count, extent, listing, name, number, percent, plural
from doorward.reports import charts
from doorward.reports.run_files import RunFolder
from doorward.reports.sections import Cell, Section

if TYPE_CHECKING:
    from doorward.certification.certificate import Certificate

_LIMITS = (
    ("Other changes", "Adding or removing training images is not a change of pixels and labels, and is not covered."),
    ("Another classifier", "It holds for the certified procedure, not for one network trained on the same images."),
    ("Larger budgets", "Past the largest certified radius nothing is known, neither success nor failure of an attack."),
    ("A backdoor already there", "It bounds what a change can do to the result; it does not say that there was none."),
)


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and its certificate, and lay out its section; it has no thumbnails."""
    results = run.results(CertifyRecord)
    certificate = _certificate(run)
    curve, clean, joint = (
        sorted(results.certified_accuracy.items()),
        results.clean_accuracy,
        sorted(results.joint.items()),
    )
    radius, share = headline_point(results.certified_accuracy)
    subject = str(run.manifest.settings.get("source") or run.name)
    words = (
        f"Certified accuracy by radius: {percent(curve[0][1])} at {curve[0][0]}, {percent(curve[-1][1])} at "
        f"{curve[-1][0]}"
    )
    return Section(
        run=run,
        subject=subject,
        verdict=results.judgement,
        template="certify.html",
        context={
            "guarantee": guarantee(results, certificate, radius, share),
            "facts": _facts(results),
            "chart": charts.step_curve(curve, clean, f"without an attacker: {percent(clean)}", words, joint),
            "joint": bool(joint),
            "curve": [(r, s, extent(*results.intervals[r]), results.joint.get(r)) for r, s in curve],
            "limits": _LIMITS,
        },
        overview={
            "Images": Cell(name(subject)),
            "Learner": Cell(name(results.learner or "–")),
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


def guarantee(results: CertifyRecord, certificate: Certificate | None, radius: int, share: float) -> str:
    """One sentence: what is guaranteed, and against whom."""
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


def _facts(results: CertifyRecord) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures that stand under the headline."""
    largest = max((radius for radius, share in results.certified_accuracy.items() if share > 0), default=0)
    facts = [
        ("Accuracy", percent(results.clean_accuracy), "without an attacker"),
        ("Largest radius", count(largest), "at which any image is certified"),
    ]
    if results.test_images:
        facts.append(("Test images", count(results.test_images), ""))
    if results.trials:
        speed = f"{number(results.trials_per_second)} a second" if results.trials_per_second else ""
        facts.append(("Trials", count(results.trials), speed))
    if results.learner:
        facts.append(("Learner", name(results.learner), ""))
    return facts
