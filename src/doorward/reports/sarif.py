"""Findings as SARIF 2.1.0 (OASIS, 2020), for code-scanning services and continuous integration.

One result per method and class with flagged images, not one per image: services keep 5,000 results and show 100
locations of each. Methods that flagged nothing give a result of kind ``pass``, so that a reader sees what was checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from doorward import __version__
from doorward.reports.knowledge import told
from doorward.reports.sections import Check, Finding, Section
from doorward.reports.text import name, percent, visible

_ATLAS = "MITRE ATLAS"
_ATLAS_VERSION = "5.6.1"
_TAXA = {
    "AML.T0020": "Poison Training Data",
    "AML.T0059": "Erode Dataset Integrity",
}
_FINDING_TAXA = ("AML.T0020",)  # the check for label errors, T0059, is named as related in the rule
_LEVELS = {"evidence": "error", "suspicious": "warning"}


def sarif(sections: Sequence[Section]) -> dict[str, Any]:
    """A SARIF log with one run per section.

    Rule identifiers are ``VERB/METHOD`` and never change. ``rank`` is 50 for a lone method and up to 100 as another
    method agrees. A fingerprint is made of the images' hash, the method and the class, so that an alert keeps its
    identity when the same images are examined again.
    """
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [_run(section) for section in sections],
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
            *(_failed(section, finding, rules[finding.method]) for finding in section.findings),
            *(_passed(section, check, rules[check.method]) for check in section.checks if not check.flagged),
        ],
        "properties": {
            "verdict": section.verdict.level,
            "headline": visible(section.verdict.headline),
            "reasons": [visible(reason) for reason in section.verdict.reasons],
            "inputs": section.inputs,
        },
    }


def _command(section: Section) -> dict[str, str]:
    command = section.run.manifest.command
    return {"commandLine": visible(command)} if command else {}


def _rule(verb: str, check: Check) -> dict[str, Any]:
    return {
        "id": _rule_id(verb, check.method),
        "name": name(check.method),
        "shortDescription": {"text": visible(check.summary) or f"Images that {name(check.method)} flags"},
        "help": {
            "text": "Look at the named images beside others of their class; remove those that carry a trigger and "
            "train again. Flagged images that are only mislabelled or unusual are no backdoor."
        },
        "defaultConfiguration": {"level": "warning"},
        "relationships": [_relation("AML.T0020", "relevant"), _relation("AML.T0059", "relevant")],
        "properties": {"tags": ["security", "backdoor", "data-poisoning"], "told": list(check.knowledge)},
    }


def _rule_id(verb: str, method: str) -> str:
    return f"{verb}/{name(method)}"


def _taxon(identifier: str) -> dict[str, Any]:
    return {"id": identifier, "index": list(_TAXA).index(identifier), "toolComponent": {"name": _ATLAS, "index": 0}}


def _relation(identifier: str, kind: str) -> dict[str, Any]:
    return {"target": _taxon(identifier), "kinds": [kind]}


def _failed(section: Section, finding: Finding, rule: int) -> dict[str, Any]:
    knowledge = section.checks[rule].knowledge
    sentence = finding.sentence
    if finding.agreement:
        sentence += f" With another method, {percent(finding.agreement, 0)} of what either flags is flagged by both."
    if not finding.counted:
        sentence += f" The method was told the {told(knowledge)}: it flags that many images, poisoned or not."
    # `review`: a method that was told how many to flag shows nothing by itself. SARIF wants level `none` for it.
    return {
        "ruleId": _rule_id(section.run.manifest.verb, finding.method),
        "ruleIndex": rule,
        "kind": "fail" if finding.weighs else "review",
        "level": _LEVELS[finding.level] if finding.weighs else "none",
        "rank": round(50 + 50 * finding.agreement, 1),
        "message": {"text": visible(sentence)},
        "locations": [_location(section, index) for index in finding.images[:100]],
        "partialFingerprints": {"classAndMethod/v1": _fingerprint(section, finding)},
        "taxa": [_taxon(identifier) for identifier in _FINDING_TAXA],
        "properties": {
            "label": finding.label,
            "class": name(finding.class_name),
            "flagged": finding.flagged,
            "images": finding.size,
            "agreement": finding.agreement,
            "groups": list(finding.groups),
        },
    }


def _location(section: Section, index: int) -> dict[str, Any]:
    path = section.run.path
    folder = path.name if path.is_absolute() else path.as_posix()  # no folder of the user's machine leaks
    uri = quote(f"{folder}/samples.parquet")
    return {
        "physicalLocation": {"artifactLocation": {"uri": uri}},
        "logicalLocations": [{"name": f"image {index}", "fullyQualifiedName": f"images[{index}]", "kind": "element"}],
    }


def _fingerprint(section: Section, finding: Finding) -> str:
    parts = (*section.inputs.values(), section.run.manifest.verb, finding.method, finding.class_name)
    return hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()[:32]


def _passed(section: Section, check: Check, rule: int) -> dict[str, Any]:
    return {
        "ruleId": _rule_id(section.run.manifest.verb, check.method),
        "ruleIndex": rule,
        "kind": "pass",
        "level": "none",
        "message": {"text": f"{name(check.method)} ran on {name(section.subject)} and flagged no image."},
    }
