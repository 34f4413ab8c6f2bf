"""Every kind of log is SARIF 2.1.0; and the schema that says so refuses what the standard refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doorward.core.results import Level
from doorward.reports.page import compose
from doorward.reports.sarif import sarif
from tests.audits.records import made_alone, made_audit, made_images
from tests.reports.sarif_schema import faults


@pytest.mark.parametrize("level", ["planted", "evidence", "suspicious", "undecided", "nothing found"])
@pytest.mark.parametrize("named", [True, False])
def test_audits(level: Level, named: bool, tmp_path: Path) -> None:
    found = made_audit(level, made_images(named=named))
    assert faults(sarif(compose(found.save(tmp_path / "audit")).sections)) == []


def test_an_audit_of_a_model_alone(tmp_path: Path) -> None:
    assert faults(sarif(compose(made_alone().save(tmp_path / "audit")).sections)) == []


@pytest.mark.parametrize("options", [{}, {"poisoned": 0, "kinds": ("impurity", "activation")}, {"seed": 5}])
def test_cleansings(make_run: Any, options: dict[str, Any]) -> None:
    assert faults(sarif(compose(make_run(**options)).sections)) == []


def _at(log: Any, path: str) -> tuple[Any, Any]:
    """What holds the last step of a path, and that step."""
    *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    for step in way:
        log = log[step]
    return log, last


def _drop(path: str) -> Callable[[Any], None]:
    def drop(log: Any) -> None:
        holder, last = _at(log, path)
        del holder[last]

    return drop


def _put(path: str, value: Any) -> Callable[[Any], None]:
    def put(log: Any) -> None:
        holder, last = _at(log, path)
        holder[last] = value

    return put


@pytest.mark.parametrize(
    "spoil",
    [
        _drop("version"),
        _put("version", "2.2.0"),
        _drop("runs/0/tool"),
        _drop("runs/0/tool/driver/name"),
        _drop("runs/0/tool/driver/rules/0/id"),
        _drop("runs/0/results/0/message"),
        _drop("runs/0/invocations/0/executionSuccessful"),
        _put("runs/0/results/0/kind", "failed"),
        _put("runs/0/results/0/level", "critical"),
        _put("runs/0/results/0/kind", "review"),  # with the level of a failure
        _put("runs/0/results/0/rank", 101),
        _put("runs/0/results/0/severity", "high"),
        _put("runs/0/results/0/partialFingerprints/other", 7),
        _put("runs/0/results/0/locations/0/physicalLocation/artifactLocation/uri", 7),
        _put("runs/0/results/0/taxa/0", {"name": "x"}),
    ],
)
def test_what_the_standard_refuses_is_refused(spoil: Callable[[Any], None], tmp_path: Path) -> None:
    log = copy.deepcopy(sarif(compose(made_audit().save(tmp_path / "audit")).sections))
    spoil(log)
    assert faults(log)
