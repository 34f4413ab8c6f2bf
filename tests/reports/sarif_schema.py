"""What SARIF 2.1.0 (OASIS standard, 2020) demands of the objects that Doorward writes, as a JSON schema.

Written from the standard's text for these objects alone: their properties, which are required, and what may stand in
them. It is stricter in one respect: a property that Doorward does not write is refused, for it is a slip of the pen.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft7Validator, FormatChecker

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
RANK = {"type": "number", "minimum": -1, "maximum": 100}
INDEX = {"type": "integer", "minimum": 0}  # the standard's -1 says that there is none
LEVEL = {"enum": ["none", "note", "warning", "error"]}
BAG = {"type": "object", "properties": {"tags": {"type": "array", "items": TEXT, "uniqueItems": True}}}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object without other properties than these."""
    named = {("$schema" if name == "schema_" else name): value for name, value in properties.items()}
    return {"type": "object", "properties": named, "required": list(required), "additionalProperties": False}


def _of(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{name}"}


def _array(items: Any, *, unique: bool = True) -> dict[str, Any]:
    return {"type": "array", "items": items, "uniqueItems": unique}


_DEFINITIONS: dict[str, Any] = {
    "run": _object(
        ("tool",),  # 3.14.6
        tool=_object(("driver",), driver=_of("toolComponent")),
        taxonomies=_array(_of("toolComponent")),
        automationDetails=_object(id=TEXT),
        invocations=_array(_of("invocation"), unique=False),
        results=_array(_of("result"), unique=False),
        properties=BAG,
    ),
    "toolComponent": _object(
        ("name",),  # 3.19.8
        name=TEXT,
        version=TEXT,
        semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
        organization=TEXT,
        shortDescription=_of("multiformatMessageString"),
        rules=_array(_of("reportingDescriptor")),
        taxa=_array(_of("reportingDescriptor")),
        supportedTaxonomies=_array(_of("toolComponentReference")),
    ),
    "invocation": _object(("executionSuccessful",), executionSuccessful={"type": "boolean"}, commandLine=TEXT),
    "reportingDescriptor": _object(
        ("id",),  # 3.49.3
        id=TEXT,
        name=TEXT,
        shortDescription=_of("multiformatMessageString"),
        help=_of("multiformatMessageString"),
        defaultConfiguration=_object(level=LEVEL, rank=RANK, enabled={"type": "boolean"}),
        relationships=_array(_object(("target",), target=_of("descriptorReference"), kinds=_array(TEXT))),
        properties=BAG,
    ),
    "multiformatMessageString": _object(("text",), text=TEXT, markdown=TEXT),
    "descriptorReference": _object((), id=TEXT, index=INDEX, toolComponent=_of("toolComponentReference"))
    | {"anyOf": [{"required": ["index"]}, {"required": ["id"]}]},
    "toolComponentReference": _object((), name=TEXT, index=INDEX),
    "result": _object(
        ("message",),  # 3.27.11
        ruleId=TEXT,
        ruleIndex=INDEX,
        kind={"enum": ["notApplicable", "pass", "fail", "review", "open", "informational"]},
        level=LEVEL,
        rank=RANK,
        message=_object(("text",), text=TEXT),
        locations=_array(_of("location"), unique=False),
        partialFingerprints={"type": "object", "additionalProperties": TEXT},
        taxa=_array(_of("descriptorReference")),
        properties=BAG,
    )
    | {  # 3.27.10: what is no failure has no level
        "if": {"properties": {"kind": {"const": "fail"}}},
        "then": {"properties": {"level": {"enum": ["note", "warning", "error"]}}},
        "else": {"properties": {"level": {"const": "none"}}},
    },
    "location": _object(
        (),
        physicalLocation=_object(
            ("artifactLocation",), artifactLocation=_object((), uri={"type": "string", "format": "uri-reference"})
        ),
        logicalLocations=_array(_object((), name=TEXT, fullyQualifiedName=TEXT, kind=TEXT)),
    ),
}
SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **_object(
        ("version", "runs"),  # 3.13
        schema_={"type": "string", "format": "uri"},
        version={"const": "2.1.0"},
        runs=_array(_of("run"), unique=False),
    ),
    "definitions": _DEFINITIONS,
}


def faults(log: Any) -> list[str]:
    """What a log does that the standard does not allow, each with its place."""
    found = Draft7Validator(SCHEMA, format_checker=FormatChecker()).iter_errors(log)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in found]
