"""What every method says of itself, and that it is handed nothing else; tested by being registered."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

from doorward.cleansers.cleanse import cleanse
from doorward.core import methods
from doorward.core.errors import DoorwardError
from doorward.core.methods import KNOWLEDGE, Method
from doorward.inversion.invert import invert
from doorward.repairs.apply import apply_repair
from doorward.screens.screen import fit
from tests.contract.runs import handed
from tests.contract.table import ALL, NO_SOURCE, RATE, TRIGGERS, by_name, of, settings
from tests.contract.worlds import TARGET, TRIGGER, world

# Parameters that a verb's methods have beside what they declare.
USUAL = {
    "attack": {"shape", "s", "generator"},
    "certify": {"block", "settings"},
    "rule": {"train", "labels", "test", "classes", "shape", "s"},
}
KNOWING = of("cleanse", "invert", "repair", "screen")


def test_every_verb_has_methods() -> None:
    assert {m.verb for m in ALL} == set(methods.VERBS) and len(ALL) >= 34


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_it_is_documented(method: Method) -> None:
    text = method.function.__doc__ or ""
    assert method.summary.endswith((".", "):", ").")) and len(method.summary) < 125, "one sentence first"
    assert "Fails when" in text, "it says when it fails"
    if by_name(method) not in NO_SOURCE:
        assert re.search(r"\b20[0-3]\d\b|docs/certification-proof\.md", text), "it names its source"


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_settings_refuse_unknown_names_and_cannot_change(method: Method) -> None:
    with pytest.raises(DoorwardError, match="settings:"):
        method.configure({"no_such_setting": 1})
    configured = method.configure(settings(method))
    for name, value in configured:
        with pytest.raises(ValueError, match="frozen"):
            setattr(configured, name, value)


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_its_parameters_are_what_it_declares(method: Method) -> None:
    parameters = inspect.signature(method.function).parameters
    if method.verb in ("attack", "certify"):
        kind = "rule" if method.verb == "certify" and "noise" not in method.given else method.verb
        assert set(parameters) == USUAL[kind] and not method.knowledge and not method.accepts
        return
    assert set(parameters) == method.given | method.accepts | {"s"}
    assert method.accepts <= KNOWLEDGE and all(parameters[a].default is None for a in method.accepts)


def ask(method: Method, known: dict[str, Any], triggers: bool = True) -> None:
    """Call the verb with this knowledge alone."""
    w, name = world(True), method.name
    if method.verb == "cleanse":
        cleanse(w.train, w.model, [name], knowledge=known)
    elif method.verb == "invert":
        invert(w.model, w.clean, [name], knowledge=known)
    elif method.verb == "repair":
        apply_repair(w.model, name, triggers=TRIGGERS["repair"] if triggers else None, knowledge=known)
    else:
        fit(w.model, w.clean, name, triggers=TRIGGERS["screen"] if triggers else None, knowledge=known)


def all_knowledge() -> dict[str, Any]:
    return {
        "poisoning_rate": RATE,
        "target_class": TARGET,
        "clean_images": np.arange(50),
        "true_trigger": TRIGGER,
    }


@pytest.mark.parametrize("method", KNOWING, ids=by_name)
def test_knowledge_is_refused_unless_given_and_refused_when_unused(method: Method) -> None:
    told = all_knowledge()
    assert set(told) == KNOWLEDGE
    for name in method.knowledge:
        others = {k: told[k] for k in method.knowledge - {name}}
        with pytest.raises(DoorwardError, match=f"{method.name}: needs {name}, which was not given"):
            ask(method, others)
    for name in KNOWLEDGE - method.given - method.accepts:
        with pytest.raises(DoorwardError, match=f"knowledge '{name}', which no method that runs uses"):
            ask(method, {name: told[name]})


@pytest.mark.parametrize("method", [m for m in KNOWING if "triggers" in m.given], ids=by_name)
def test_triggers_are_refused_unless_given(method: Method) -> None:
    with pytest.raises(DoorwardError, match=f"{method.name}: needs triggers, which were not given"):
        ask(method, {k: v for k, v in all_knowledge().items() if k in method.knowledge}, triggers=False)


@pytest.mark.parametrize("method", KNOWING, ids=by_name)
def test_it_is_handed_what_it_declares_and_nothing_else(method: Method) -> None:
    given = handed(method, world(True))
    assert method.given <= set(given)
    assert set(given) - {"s"} <= method.given | method.accepts
    assert type(given["s"]) is method.settings


def test_knowledge_of_a_new_method_is_refused_too() -> None:
    @methods.method("cleanse", "test-only-oracle", settings=methods.Settings, given={"labels", "target_class"})
    def oracle(labels: np.ndarray, target_class: int, s: methods.Settings) -> None:
        """Never runs."""
        raise AssertionError

    try:
        with pytest.raises(DoorwardError, match="test-only-oracle: needs target_class, which was not given"):
            cleanse(world(True).train, world(True).model, ["test-only-oracle"])
    finally:
        del methods._REGISTRY["cleanse", "test-only-oracle"]
