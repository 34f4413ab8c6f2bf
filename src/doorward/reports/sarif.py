"""Findings as SARIF 2.1.0 (OASIS, 2020), for code-scanning services and continuous integration.

One result per finding (a method and a class), not one per image: services keep 5,000 results and show 100 locations of
each. Audits alone give one per suspect, for theirs are to be taken out one by one. Methods that found nothing give a
result of kind ``pass``, so that a reader sees what was checked. Every result has a location: code scanning refuses
those without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from doorward import __version__
from doorward.core.results import Finding
from doorward.core.text import name, percent, visible
from doorward.reports.knowledge import told
from doorward.reports.sections import Check, Section, Suspect

_ATLAS = "MITRE ATLAS"
_ATLAS_VERSION = "5.6.1"
_TAXA = {
    "AML.T0018": "Manipulate AI Model",
    "AML.T0020": "Poison Training Data",
    "AML.T0059": "Erode Dataset Integrity",
}
# What a finding of each verb is about. The check for label errors, T0059, is named as related in the rule.
_TAXON = {
    "audit": "AML.T0020",
    "cleanse": "AML.T0020",
    "invert": "AML.T0018",
    "repair": "AML.T0018",
    "screen": "AML.T0018",
}
_LEVELS: dict[str, str] = {"planted": "error", "evidence": "error", "suspicious": "warning", "not repaired": "warning"}
_MOST_RESULTS = 5000  # that services keep

_MODEL_HELP = (
    "Look at the trigger on pictures of other classes. Repair the model with it, or train again on a set that was "
    "cleansed, and invert again."
)
_HELP = {
    "audit": "Look at the image beside others of its class, take it out (doorward export RUN --keep) and train again.",
    "cleanse": "Look at the named images beside others of their class; remove those that carry a trigger and train "
    "again. Flagged images that are only mislabelled or unusual are no backdoor.",
    "invert": _MODEL_HELP,
    "repair": _MODEL_HELP,
    "screen": "Look at the named images: one that carries a trigger should not be trusted to the model.",
}


def sarif(sections: Sequence[Section]) -> dict[str, Any]:
    """A SARIF log with one run per section.

    Rule identifiers are ``VERB/METHOD`` and never change. ``rank`` is 50 for a lone method and up to 100 as another
    method agrees. A fingerprint is made of the images' hash, the method and the class, so that an alert keeps its
    identity when the same images are examined again.
    """
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [_run(section) for section in sections if section.checks],
    }


def _run(section: Section) -> dict[str, Any]:
    verb = section.run.manifest.verb
    rules = {check.method: i for i, check in enumerate(section.checks)}
    return {
        "tool": {
            "driver": {
                "name": "doorward",
                "semanticVersion": section.run.manifest.versions.get("doorward", __version__),
                "rules": [_rule(verb, check) for check in section.checks],
                "supportedTaxonomies": [{"name": _ATLAS, "index": 0}],
            }
        },
        "taxonomies": [
            {
                "name": _ATLAS,
                "version": _ATLAS_VERSION,
                "organization": "MITRE",
                "shortDescription": {"text": "Tactics and techniques against machine learning systems"},
                "taxa": [{"id": i, "name": n} for i, n in _TAXA.items()],
            }
        ],
        "automationDetails": {"id": f"doorward/{verb}/{quote(section.run.name)}"},
        "invocations": [{"executionSuccessful": True, **_command(section)}],
        "results": [
            *(_suspect(section, suspect) for suspect in section.suspects[:_MOST_RESULTS]),
            *(_found(section, finding, rules[finding.method]) for finding in _findings(section)),
            *(_passed(section, check, rules[check.method]) for check in section.checks if not check.flagged),
        ],
        "properties": {
            "verdict": section.verdict.level,
            "headline": visible(section.verdict.headline),
            "reasons": [visible(reason) for reason in section.verdict.reasons],
            "inputs": section.inputs,
            **_unlisted(section),
        },
    }


def _command(section: Section) -> dict[str, str]:
    command = section.run.manifest.command
    return {"commandLine": visible(command)} if command else {}


def _rule(verb: str, check: Check) -> dict[str, Any]:
    return {
        "id": _rule_id(verb, check.method),
        "name": name(check.method),
        "shortDescription": {"text": visible(check.summary) or f"What {name(check.method)} finds"},
        "help": {"text": _HELP[verb]},
        "defaultConfiguration": {"level": "warning"},
        "relationships": [_relation(taxon, "relevant") for taxon in dict.fromkeys((_TAXON[verb], "AML.T0059"))],
        "properties": {"tags": ["security", "backdoor", "data-poisoning"], "told": list(check.knowledge)},
    }


def _rule_id(verb: str, method: str) -> str:
    return f"{verb}/{name(method)}"


def _taxon(identifier: str) -> dict[str, Any]:
    return {"id": identifier, "index": list(_TAXA).index(identifier), "toolComponent": {"name": _ATLAS, "index": 0}}


def _relation(identifier: str, kind: str) -> dict[str, Any]:
    return {"target": _taxon(identifier), "kinds": [kind]}


def _found(section: Section, finding: Finding, rule: int) -> dict[str, Any]:
    knowledge = section.checks[rule].knowledge
    sentence = finding.sentence
    if finding.agreement:
        sentence += f" With another kind of method, {percent(finding.agreement, 0)} of what either flags both flag."
    if not finding.counted:
        sentence += f" The method was told the {told(knowledge)}: it flags that many images, poisoned or not."
    # `review`: flags that no verdict rests on. SARIF wants level `none` for what is no failure.
    return {
        "ruleId": _rule_id(section.run.manifest.verb, finding.method),
        "ruleIndex": rule,
        "kind": "fail" if finding.weighs else "review",
        "level": _LEVELS.get(finding.level, "none"),
        "rank": round(50 + 50 * finding.agreement, 1),
        "message": {"text": visible(sentence)},
        "locations": _locations(section, finding),
        "partialFingerprints": {"classAndMethod/v1": _fingerprint(section, finding)},
        "taxa": [_taxon(_about(section))],
        "properties": {
            "label": finding.label,
            "class": name(finding.class_name),
            "p_value": finding.p_value,
            "flagged": finding.flagged,
            "images": finding.size,
            "agreement": finding.agreement,
        },
    }


def _findings(section: Section) -> list[Finding]:
    """What is told of whole classes: all findings, but those of classes whose suspects are told one by one."""
    apart = {suspect.label for suspect in section.suspects}
    return [f for f in section.findings if f.label not in apart]


def _unlisted(section: Section) -> dict[str, int]:
    """How many suspects have no result of their own, if any."""
    more = len(section.suspects) - _MOST_RESULTS
    return {"suspectsNotListed": more} if more > 0 else {}


def _suspect(section: Section, suspect: Suspect) -> dict[str, Any]:
    """One image to leave out; its fingerprint is made of its name and class, so that it outlives other runs."""
    told = f"{suspect.id} ({suspect.class_name}) is one of the images that a backdoor was planted with"
    if suspect.level != "planted":
        told = f"{suspect.id} ({suspect.class_name}) is suspected of carrying a trigger"
    parts = (suspect.id, suspect.class_name, *(() if suspect.named else section.inputs.values()))
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": quote(suspect.id)}}}
    if not suspect.named:
        place = _element(section, suspect.row)
    return {
        "ruleId": _rule_id("audit", "audit"),
        "ruleIndex": 0,
        "kind": "fail" if suspect.level in _LEVELS else "review",
        "level": _LEVELS.get(suspect.level, "none"),
        "rank": round(100 * min(max(suspect.score, 0.0), 1.0), 1),
        "message": {"text": visible(f"{told}: {suspect.evidence.replace('+', ', ') or 'the experiment'}.")},
        "locations": [place],
        "partialFingerprints": {"imageAndClass/v1": _digest(parts)},
        "taxa": [_taxon(_TAXON["audit"])],
        "properties": {
            "label": suspect.label,
            "class": name(suspect.class_name),
            "decided": name(suspect.predicted),
            "score": round(suspect.score, 6),
            "verdict": suspect.level,
        },
    }


def _about(section: Section) -> str:
    """What technique a finding is about; an audit without suspects speaks of the model."""
    verb = section.run.manifest.verb
    return "AML.T0018" if verb == "audit" and not section.suspects else _TAXON[verb]


def _locations(section: Section, finding: Finding) -> list[dict[str, Any]]:
    """The images, or the file of the run that it is about."""
    if not finding.images:
        return [_location(section, finding.file or "run.json")]
    if finding.ids:
        return [{"physicalLocation": {"artifactLocation": {"uri": quote(name)}}} for name in finding.ids]
    return [_element(section, row) for row in finding.images]


def _element(section: Section, row: int) -> dict[str, Any]:
    """An image without a name: a row of the run's table."""
    place = {"name": f"image {row}", "fullyQualifiedName": f"images[{row}]", "kind": "element"}
    return _location(section, "samples.parquet") | {"logicalLocations": [place]}


def _location(section: Section, file: str) -> dict[str, Any]:
    path = section.run.final
    folder = path.name if path.is_absolute() else path.as_posix()  # no folder of the user's machine leaks
    return {"physicalLocation": {"artifactLocation": {"uri": quote(f"{folder}/{file}")}}}


def _fingerprint(section: Section, finding: Finding) -> str:
    parts = (*section.inputs.values(), section.run.manifest.verb, finding.method, finding.class_name)
    return _digest(parts)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()[:32]


def _passed(section: Section, check: Check, rule: int) -> dict[str, Any]:
    return {
        "ruleId": _rule_id(section.run.manifest.verb, check.method),
        "ruleIndex": rule,
        "kind": "pass",
        "level": "none",
        "message": {"text": f"{name(check.method)} ran on {name(section.subject)}: no finding."},
        "locations": [_location(section, "run.json")],
    }
