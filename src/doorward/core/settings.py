"""`Settings`: the base of every method's settings and of every request. Imports little, for the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from doorward.core.errors import DoorwardError


class Settings(BaseModel):
    """Base of every method's settings: immutable, unknown names refused, ranges checked, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)
_LONGEST = 80  # characters of a value that are shown

# fields of requests that the command line calls otherwise
_OPTIONS = {"value_range": "range", "methods": "method", "references": "reference", "targets": "target",
            "settings": "set", "training": "set", "knowledge": "know"}  # fmt: skip
_OWN_WORDS = ("value_error", "assertion_error")  # of a validator, which says itself what it expected
_KINDS = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "string": "text",
          "object": "names with values"}  # fmt: skip
_PLURALS = {"number": "numbers", "integer": "whole numbers", "string": "texts"}


def option_name(field: str) -> str:
    """How the command line spells a field of a request: ``--range`` for ``value_range``."""
    return f"--{_OPTIONS.get(field, field).replace('_', '-')}"


def build_settings(kind: type[S], what: str, values: Mapping[str, Any], *, options: bool = False) -> S:
    """Settings from plain values.

    Args:
        what: whose settings they are, for the message.
        options: the values are those of options of the command line, and are called so.

    Raises:
        DoorwardError: one line with the name, the value and what was expected; for a wrong name, what is like it.
    """
    if not isinstance(values, Mapping):
        raise DoorwardError(f"{what}: settings {repr(values)[:_LONGEST]}; expected names with values")
    try:
        return kind(**values)
    except ValidationError as error:
        raise DoorwardError(f"{what}: {_told(kind, values, error, options)}") from None


def _told(kind: type[Settings], values: Mapping[str, Any], error: ValidationError, options: bool) -> str:
    """What is wrong with the first wrong value, and what was expected in its place."""
    wrong = error.errors(include_url=False)
    first = min(wrong, key=lambda e: e["type"] == "missing")  # a name that is missing may be there, misspelt
    owner, place, value = _wrong(kind, values, first["loc"])
    path = ".".join(place)
    if first["type"] == "extra_forbidden":
        return _unknown(place[-1], path, owner.model_fields)
    words = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not place:
        return words
    name = option_name(path) if options else f"setting {path!r}"
    expected = words if first["type"] in _OWN_WORDS else f"expected {_expected(owner, place[-1])}"
    if first["type"] == "finite_number":
        expected = expected.replace("a number", "a finite number")
    if first["type"] == "missing" and len(first["loc"]) == len(place):
        return f"{name} is missing; {expected}"
    shown = str(value)[:_LONGEST] if options else f"= {repr(value)[:_LONGEST]}"
    return f"{name} {shown}; {expected}"


def _wrong(
    kind: type[Settings], values: Mapping[str, Any], loc: Iterable[int | str]
) -> tuple[type[Settings], list[str], Any]:
    """The class whose field is wrong, the path of names to it, and the value there."""
    owner, place = kind, list[str]()
    value: Any = values
    within: type[Settings] | None = kind
    for name in loc:
        if within is None or not isinstance(name, str):
            break  # within one value, such as the third of a list: the value as a whole is shown
        owner = within
        place.append(name)
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        field = within.model_fields.get(name)
        inner = None if field is None else field.annotation
        within = inner if isinstance(inner, type) and issubclass(inner, Settings) else None
    return owner, place, value


def _unknown(name: str, path: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1) or [
        k
        for k in names
        if k == "".join(part[:1] for part in name.lower().split("_"))  # learning_rate for lr
    ]
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"no setting {path!r}; {meant}settings: {', '.join(names) or 'none'}"


def _expected(owner: type[Settings], name: str) -> str:
    """What a field takes, in words, out of its JSON schema."""
    schema = owner.model_json_schema()
    return _in_words(schema["properties"][name], schema.get("$defs", {}))


def _in_words(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _in_words(shared[schema["$ref"].rpartition("/")[2]], shared)
    if "enum" in schema or "const" in schema:
        choices = [str(c) for c in schema.get("enum", [schema.get("const")])]
        return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]
    if "anyOf" in schema:
        parts = [_in_words(s, shared) for s in schema["anyOf"] if s.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    kind = str(schema.get("type", ""))
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        count = f"{len(items)} " if "prefixItems" in schema else ""
        return f"{count}{_PLURALS.get(str(items[0].get('type')), 'values')}, as [A, B, ...]"
    return f"{_KINDS.get(kind, 'another value')}{_bounds(schema)}"


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    told = [] if low is None else [f"of {low:g} or more"]
    told += [] if above is None else [f"above {above:g}"]
    told += [] if high is None else [f"at most {high:g}"]
    told += [] if below is None else [f"below {below:g}"]
    return f" {' and '.join(told)}" if told else ""
