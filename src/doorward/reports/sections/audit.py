"""The section of an audit run: the verdict, the trigger at work, the experiment, the suspects, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from doorward.audits.records import ArmsRecord, AuditRecord, PowerRecord, TargetRecord, mean_rate
from doorward.audits.results import Audit, Table
from doorward.audits.summary import accused, power_sentence
from doorward.audits.verdict import RULE
from doorward.core.results import Level
from doorward.core.text import count, listing, name, number, percent, plural, quoted
from doorward.reports import charts
from doorward.reports.knowledge import BLIND_SPOTS, MethodNotes
from doorward.reports.run_files import RunFolder, read_thumbnails
from doorward.reports.sections import Cell, Check, Section, Suspect
from doorward.reports.sections._next import next_steps
from doorward.reports.sections._score import attacked, scored
from doorward.reports.thumbnails import Thumbnail, strips

_MOST_ROWS = 12  # suspects of a class in the table
_MOST_NAMES = 200  # and listed by name
_SUMMARY = "Every method on one set and its model, and an experiment: trained again without the suspects"
KINDS = {
    "clusters": "the cleansers: images of the class that lie apart from the others",
    "contradiction": "images whose label only their own kind supports",
    "transfer": "what the suspects have in common, put on images of other classes",
    "inversion": "a trigger searched for in the model: the class is easier to reach than others",
}
TECHNIQUES = (
    ("MITRE ATLAS", "AML.T0020", "Poison Training Data"),
    ("MITRE ATLAS", "AML.T0018", "Manipulate AI Model (formerly Backdoor ML Model)"),
    ("NIST AI RMF", "MEASURE 2.7", "AI system security and resilience are evaluated and documented"),
)
Strips = Mapping[tuple[int, str], list[Thumbnail]]


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and lay out its section."""
    found = Audit.read(run.path, run.manifest.results)
    results, samples, score = found.facts, found.samples, run.score()
    rows = accused(results)
    suspects = _suspects(results, samples, rows)
    pictures = _pictures(results, run, rows, thumbnail_bytes)
    cards = [_card(t, suspects, _doubtful(samples, t.label), pictures) for t in rows]
    methods = dict.fromkeys(("audit", *(f.method for f in results.findings)))  # of a model alone: its inversions
    sentences = {t.sentence for t in results.targets_looked_into}
    classes = results.images.classes if results.images else ()
    return Section(
        run=run,
        subject=results.images.name if results.images and samples is not None else results.model or run.name,
        verdict=results.judgement,
        template="audit.html",
        context={
            "p": results.judgement.p_value,
            "rule": RULE,
            "cards": cards,
            "at_work": next((card for card in cards if card["before"]), None),
            "reasons": [r for r in results.judgement.reasons if r not in sentences and not r.startswith("Not run:")],
            "facts": _facts(results, run, samples),
            "looked": [_looked(t) for t in results.targets_looked_into if t.label not in {row.label for row in rows}],
            "steps": next_steps(results, run, (run.path / "model").is_dir()),
            "left_out": results.left_out,
            "power": None if results.power is None else _power(results.power),
            "stages": [(s.name, s.note, f"{s.seconds:,.1f}") for s in results.stages],
            "total": f"{sum(s.seconds for s in results.stages):,.1f}",
            "described": [("audit", "", MethodNotes(_SUMMARY))],
            "blind_spots": BLIND_SPOTS["audit"],
            "techniques": TECHNIQUES,
            "score": scored(score, classes, {}) if score else None,
        },
        overview=_overview(results, rows) | attacked(score, classes),
        inputs={} if results.images is None else {"images": results.images.sha256},
        findings=results.findings,
        checks=tuple(
            Check(m, _SUMMARY, sum(f.flagged or 1 for f in results.findings if f.method == m)) for m in methods
        ),
        suspects=suspects,
        warnings=results.warnings,
    )


def _suspects(results: AuditRecord, samples: Table | None, rows: Sequence[TargetRecord]) -> tuple[Suspect, ...]:
    """Every image to leave out, most certain first."""
    if samples is None or results.images is None:
        return ()
    levels: dict[int, Level] = {t.label: t.level for t in rows}  # type: ignore[misc]
    classes = results.images.classes
    where = np.flatnonzero(samples.suspect)
    where = where[np.argsort(-samples.score[where], kind="stable")]
    named = any(samples.ids[row] != str(row) for row in where.tolist())
    return tuple(
        Suspect(
            samples.ids[row],
            row,
            named,
            label := int(samples.label[row]),
            classes[label],
            classes[int(samples.predicted[row])],
            samples.evidence[row],
            float(samples.score[row]),
            levels.get(label, results.judgement.level),
        )
        for row in where.tolist()
    )


def _pictures(results: AuditRecord, run: RunFolder, rows: Sequence[TargetRecord], budget: int) -> Strips:
    """Strips by class and kind; those at work first, so that they stay where the page has little room."""
    places = results.thumbnails
    wanted: dict[tuple[int, str], list[int]] = {
        (t.label, kind): list(places[t.label][kind])
        for kind in ("before", "after", "suspects", "doubtful")
        for t in rows
        if kind in places.get(t.label, {})
    }
    if not wanted:
        return {}
    highest = max(max(rows, default=0) for rows in wanted.values())
    return strips(read_thumbnails(run.path / "thumbnails.npy", highest), wanted, budget)


def _doubtful(samples: Table | None, label: int) -> list[str]:
    """Names of a class's images that somebody should look at, most certain first."""
    if samples is None:
        return []
    return [samples.ids[row] for row in samples.ranked(samples.doubtful & (samples.label == label))]


def _card(
    target: TargetRecord, suspects: Sequence[Suspect], doubtful: Sequence[str], pictures: Strips
) -> dict[str, Any]:
    """One accused class: pictures, experiment, evidence, names."""
    own = [s for s in suspects if s.label == target.label]
    arms = target.experiment
    return {
        "name": target.class_name,
        "level": target.level,
        "size": target.suspects,
        "success": target.success,
        "trigger": target.trigger,
        "before": pictures.get((target.label, "before"), []),
        "after": pictures.get((target.label, "after"), []),
        "suspects": pictures.get((target.label, "suspects"), []),
        "look": pictures.get((target.label, "doubtful"), []),
        "doubtful": doubtful[:_MOST_NAMES],
        "unnamed": max(0, len(doubtful) - _MOST_NAMES),
        "sentence": target.sentence,
        "experiment": [] if arms is None else _experiment(target, arms),
        "evidence": [(kind, KINDS.get(kind, ""), p) for kind, p in target.evidence.items()],
        "p": target.p_value,
        "files": own[:_MOST_ROWS],
        "more": [s.id for s in own[_MOST_ROWS : _MOST_ROWS + _MOST_NAMES]],
        "unlisted": max(0, len(own) - _MOST_ROWS - _MOST_NAMES),
    }


def _experiment(target: TargetRecord, arms: ArmsRecord) -> list[dict[str, Any]]:
    """What came out, as sentences with a chart each: of the trigger, and of suspects that the nets never saw."""
    size, into, made = plural(arms.size, "image"), quoted(target.class_name), []
    these = f"these {size}" if arms.size in (target.suspects, target.doubtful) else size
    if target.suspects not in (0, arms.size):
        these += f", {count(target.suspects)} of them to leave out,"
    free, control = mean_rate(arms.without), mean_rate(arms.control)
    if free is not None and control is not None:
        told = (
            f"Without {these} the trigger works on {percent(free)} of pictures, without {count(arms.size)} others "
            f"of the class on {percent(control)}."
        )
        rows = (_arm("without the suspects", arms.without), _arm("without as many others", arms.control, bad=True))
        caption = f"Share of {plural(arms.tried, 'picture')} of other classes that the trigger sends to {into}"
        made.append(_compared(told, caption, rows, arms.p_value, arms.stops))
    alone, beside = mean_rate(arms.unseen_without), mean_rate(arms.unseen_control)
    if alone is not None and beside is not None:
        first = "Suspects teach each other’s label: nets" if arms.teaches else "Nets"
        told = (
            f"{first} that know other suspects decide {percent(beside)} of those that they never saw as {into}, nets "
            f"that know none {percent(alone)}."
        )
        rows = (
            _arm("nets that know no suspect", arms.unseen_without),
            _arm("nets that know other suspects", arms.unseen_control, bad=True),
        )
        caption = f"Share of suspects, which the net never saw, decided as {into}"
        made.append(_compared(told, caption, rows, arms.p_unseen, arms.teaches))
    return made


def _arm(words: str, rates: tuple[float | None, ...], *, bad: bool = False) -> charts.Arm:
    return charts.Arm(words, tuple(rate for rate in rates if rate is not None), bad)


def _compared(
    sentence: str, caption: str, rows: Sequence[charts.Arm], p_value: float | None, shown: bool
) -> dict[str, Any]:
    sentence = sentence.replace(" %", "\u00a0%")
    chart = charts.arms(rows, f"{caption}. {sentence}")
    return {"sentence": sentence, "caption": caption, "chart": chart, "p": p_value, "shown": shown}


def _looked(target: TargetRecord) -> dict[str, Any]:
    """A class that was looked into and is not accused."""
    return {"name": target.class_name, "p": target.p_value, "sentence": target.sentence, "level": target.level}


def _facts(results: AuditRecord, run: RunFolder, samples: Table | None) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures under the verdict."""
    facts = [("p-value", number(results.judgement.p_value), f"of the whole audit; suspicious at {results.level:g}")]
    if results.images is not None:
        channels, height, width = results.images.shape
        kind = "Images" if samples is not None else "Clean images"
        size = f"{width} × {height}, {'grey' if channels == 1 else 'colour'}"
        classes = plural(len(results.images.classes), "class")
        facts.append((kind, count(sum(results.images.counts)), f"{size}, {classes}"))
    if samples is not None:
        facts.append(("Suspects", count(results.suspects), "to leave out; by name in suspects.csv"))
    if results.doubtful:
        facts.append(("To look at", count(results.doubtful), "not shown to be poisoned; by name in doubtful.csv"))
    accuracy = results.classifier.accuracy_on_images
    if accuracy:
        whose = "trained for the audit" if results.trained else "as it was given"
        whose += ", on the training set" if samples is not None else ""
        facts.append(("Model’s accuracy", percent(accuracy.value), f"{name(results.classifier.arch)}, {whose}"))
    if results.rounds > 1:
        facts.append(("Rounds", count(results.rounds), "each without what was found before"))
    if run.manifest.seconds is not None and run.manifest.command:
        facts.append(("Time", f"{run.manifest.seconds:,.1f} s", "for the whole run"))
    return facts


def _power(power: PowerRecord) -> dict[str, Any]:
    """How few poisoned images would have been found: a sentence and its trials, most images first."""
    rows = [
        (count(t.images), percent(t.success), t.level, count(t.found), count(t.false))
        for t in sorted(power.trials, key=lambda trial: -trial.images)
    ]
    return {"sentence": power_sentence(power), "trials": rows}


def _overview(results: AuditRecord, rows: Sequence[TargetRecord]) -> dict[str, Cell]:
    """This run as a row of the table of all runs."""
    made = {}
    if results.images is not None:
        made["Images"] = Cell(name(results.images.name), plural(sum(results.images.counts), "image"))
    made["Into"] = Cell(listing([quoted(t.class_name) for t in rows], 3), tone="flagged" if rows else "")
    made["Suspects"] = Cell(count(results.suspects))
    arms = next((t.experiment for t in rows if t.experiment is not None and t.experiment.control), None)
    if arms is not None:
        made["Trigger without them"] = Cell(
            percent(mean_rate(arms.without)), f"{percent(mean_rate(arms.control))} without as many others"
        )
    made["p-value"] = Cell(number(results.judgement.p_value))
    return made
