"""The section of a certify run: every number comes from its certificate, once that has been verified."""

from __future__ import annotations

from doorward.certification.certificate import BLOCKS, SMOOTHING, Certificate
from doorward.certification.results import CertifyRecord, headline_point, summarise
from doorward.core.results import Judgement
from doorward.core.text import count, extent, listing, name, percent, plural, visible
from doorward.reports import charts
from doorward.reports.run_files import RunFolder
from doorward.reports.sections import Cell, Section
from doorward.verifier import Report, verify

_LIMITS = (
    ("Other changes", "Adding or removing training images is not a change of pixels and labels, and is not covered."),
    ("Another classifier", "It holds for the certified procedure, not for one network trained on the same images."),
    ("Larger budgets", "Past the largest certified radius nothing is known, neither success nor failure of an attack."),
    ("A backdoor already there", "It bounds what a change can do to the result; it does not say that there was none."),
)


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Verify the certificate and lay out the section of its run; it has no thumbnails.

    What `run.json` says of radii and shares is not read: it is not bound by anything.
    """
    run.results(CertifyRecord)  # its form alone
    path = run.path / "certificate.json"
    if not path.exists():
        return _unverified(run, ("There is no certificate.json beside run.json.",))
    report = verify(path)
    if "sha256 does not fit the content" in report.problems:
        Certificate.load(path)  # says so: it was changed after it was written
    if not report.valid:
        return _unverified(run, report.problems)
    return _verified(run, Certificate.load(path), report)


def _unverified(run: RunFolder, problems: tuple[str, ...]) -> Section:
    """A section that says so first, and shows no radius."""
    reasons = tuple(visible(f"{problem[:1].upper()}{problem[1:]}") for problem in problems)
    headline = "This certificate does not verify: nothing is proven"
    return Section(
        run=run,
        subject=_subject(run),
        verdict=Judgement(level="undecided", headline=headline, reasons=reasons),
        template="certify.html",
        context={"verified": False},
        overview={
            "Images": Cell(name(_subject(run))),
            "Certified": Cell("not verified", "nothing is proven", "flagged"),
        },
        inputs={},
    )


def _subject(run: RunFolder) -> str:
    return str(run.manifest.settings.get("source") or run.name)


def _verified(run: RunFolder, certificate: Certificate, report: Report) -> Section:
    learner = certificate.method
    if certificate.method == SMOOTHING:
        learner = str(certificate.settings.get("learner", ""))
    results = summarise(certificate, learner, None)
    curve, clean, joint = (
        sorted(results.certified_accuracy.items()),
        results.clean_accuracy,
        sorted(results.joint.items()),
    )
    radius, share = headline_point(results.certified_accuracy)
    words = (
        f"Certified accuracy by radius: {percent(curve[0][1])} at {curve[0][0]}, {percent(curve[-1][1])} at "
        f"{curve[-1][0]}"
    )
    return Section(
        run=run,
        subject=_subject(run),
        verdict=_judgement(results.judgement, report),
        template="certify.html",
        context={
            "verified": True,
            "guarantee": guarantee(results, certificate, report, radius, share),
            "facts": _facts(results),
            "chart": charts.step_curve(curve, clean, f"without an attacker: {percent(clean)}", words, joint),
            "joint": bool(joint),
            "curve": [(r, s, extent(*results.intervals[r]), results.joint.get(r)) for r, s in curve],
            "limits": _LIMITS,
        },
        overview={
            "Images": Cell(name(_subject(run))),
            "Learner": Cell(name(learner or "–")),
            "Accuracy": Cell(percent(clean)),
            "Certified": Cell(percent(share), f"at radius {radius}", "proven"),
            "Trials": Cell(count(results.trials) if results.trials else "exact"),
        },
        inputs={"training images": certificate.train_sha256, "test images": certificate.test_sha256},
    )


def _judgement(judged: Judgement, report: Report) -> Judgement:
    """The verdict with what the verifier warns of; too little confidence comes first."""
    loud = [w for w in report.warnings if w.startswith("only ")]
    headline = f"{loud[0].partition(':')[0].capitalize()}. {judged.headline}" if loud else judged.headline
    checked = "The certificate was verified for this page; whether its votes or evidence were made up, the data tell."
    warned = tuple(f"{w[:1].upper()}{w[1:]}." for w in report.warnings)
    return judged.model_copy(update={"headline": headline, "reasons": (*warned, *judged.reasons, checked)})


def guarantee(results: CertifyRecord, certificate: Certificate, report: Report, radius: int, share: float) -> str:
    """One sentence: what is guaranteed, and against whom."""
    places = listing([b.name for b in certificate.blocks] or list(BLOCKS))
    sure = f"with confidence {report.meaning['confidence']} for each image by itself"
    if not results.trials:
        sure = "with certainty, without sampling"
    return (
        f"For {percent(share)} of the test images, no attacker who changes at most {plural(radius, 'value')} in all "
        f"among {places} can change the right prediction of this training and prediction procedure, even one who knows "
        f"all images and the procedure and chooses the changes for that very test image; this holds {sure}"
        + (", over the procedure’s own random draws, which the attacker must not know." if results.trials else ".")
    )


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
        facts.append(("Trials", count(results.trials), ""))
    if results.learner:
        facts.append(("Learner", name(results.learner), ""))
    return facts
