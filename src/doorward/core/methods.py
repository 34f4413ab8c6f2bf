"""The registry of methods: plain functions, each with what it is given declared beside it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from doorward.core.errors import DoorwardError
from doorward.core.images import class_number
from doorward.core.settings import Settings as Settings
from doorward.core.settings import build_settings as build_settings

# Where the methods of a verb lie: every module there is imported, so that a method is one file and nothing else.
_WHERE = {
    "attack": ("doorward.attacks.recipes",),
    "cleanse": ("doorward.cleansers.methods",),
    "invert": ("doorward.inversion.methods",),
    "repair": ("doorward.repairs.methods",),
    "screen": ("doorward.screens.methods",),
    "certify": ("doorward.certification.smoothing.learners", "doorward.certification.exact.methods"),
}
VERBS = tuple(_WHERE)  # verbs that have methods

# What an auditor does not have in practice. A method that wants one of these must say so in `given`, is refused
# unless the caller supplies it, and is marked in every table.
KNOWLEDGE = frozenset({"poisoning_rate", "target_class", "clean_images", "true_trigger"})


@dataclass(frozen=True)
class Method:
    """A registered method."""

    verb: str
    name: str
    function: Callable[..., Any]
    settings: type[Settings]
    given: frozenset[str]
    accepts: frozenset[str] = frozenset()
    kind: str = ""

    @property
    def knowledge(self) -> frozenset[str]:
        """What the method cannot do without that an auditor does not have in practice."""
        return self.given & KNOWLEDGE

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    def configure(self, values: dict[str, Any] | None = None) -> Settings:
        """Settings from plain values; one clear line when a name or a value is wrong."""
        return build_settings(self.settings, f"{self.verb} {self.name}", values or {})


_REGISTRY: dict[tuple[str, str], Method] = {}
F = TypeVar("F", bound=Callable[..., Any])


def method(
    verb: str, name: str, *, settings: type[Settings], given: set[str], accepts: set[str] | None = None, kind: str = ""
) -> Callable[[F], F]:
    """Register a function as method ``name`` of ``verb``; the function itself stays as it is.

    Args:
        settings: the class of its settings.
        given: everything the function is handed, by the names of its parameters.
        accepts: knowledge it can use but does without (parameters that default to None).
        kind: what its evidence is made of, such as ``features``; two methods of one kind are no two witnesses.
    """

    def register(function: F) -> F:
        known = _REGISTRY.get((verb, name))
        if known is not None and known.function.__module__ != function.__module__:
            raise RuntimeError(f"{verb} {name} is registered by {known.function.__module__} already")
        known_by = frozenset(accepts or ())
        _REGISTRY[verb, name] = Method(verb, name, function, settings, frozenset(given), known_by, kind)
        return function

    return register


@cache
def _load(verb: str) -> None:
    for place in _WHERE[verb]:
        package = importlib.import_module(place)
        for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{place}."):
            importlib.import_module(found.name)
    for entry in entry_points(group=f"doorward.{verb}"):  # methods of packages that the user installed
        entry.load()


def as_names(methods: str | Sequence[str]) -> tuple[str, ...]:
    """Names of methods, each once, in order; a single name may come as plain text."""
    if not isinstance(methods, Sequence):
        raise DoorwardError(f"methods of type {type(methods).__name__}; expected a name, or several in a list")
    return (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))


def names(verb: str) -> list[str]:
    """Names of all methods of a verb, in the order of the files that they lie in; those of other packages last."""
    _load(verb)
    return [m.name for m in sorted((m for (v, _), m in _REGISTRY.items() if v == verb), key=_place)]


def _place(method: Method) -> tuple[int, str]:
    """Sorts methods the same way whichever of them was imported first."""
    module, places = method.function.__module__, _WHERE[method.verb]
    return next((i for i, place in enumerate(places) if module.startswith(f"{place}.")), len(places)), module


def get(verb: str, name: str) -> Method:
    """The method of that name, or one line that lists the names there are."""
    _load(verb)
    try:
        return _REGISTRY[verb, name]
    except KeyError:
        raise DoorwardError(f"{verb}: no method {name!r}; expected one of {', '.join(names(verb))}") from None


def check_knowledge(
    verb: str, known: Mapping[str, Any], chosen: Sequence[Method], classes: Sequence[str]
) -> dict[str, Any]:
    """What the caller declares to know, checked before anything runs; a target class by name becomes its number.

    Raises:
        DoorwardError: knowledge that there is not, or that no chosen method uses; a rate or a class that cannot be;
            what a method needs and was not given.
    """
    resolved, used = dict(known), frozenset[str]().union(*(m.given | m.accepts for m in chosen))
    for name, value in known.items():
        if name not in KNOWLEDGE:
            raise DoorwardError(f"{verb}: knowledge {name!r}; expected one of {', '.join(sorted(KNOWLEDGE))}")
        if name == "poisoning_rate" and not (isinstance(value, int | float) and 0 < value < 1):
            raise DoorwardError(f"{verb}: poisoning_rate {value}; expected a number between 0 and 1")
        if name == "target_class":
            resolved[name] = class_number(value, classes, f"{verb}: target_class")
        if name not in used:
            running = ", ".join(m.name for m in chosen)
            raise DoorwardError(f"{verb}: knowledge {name!r}, which no method that runs uses; methods: {running}")
    for method in chosen:
        for name in sorted(method.knowledge - set(known)):
            raise DoorwardError(f"{verb} {method.name}: needs {name}, which was not given")
    return resolved
