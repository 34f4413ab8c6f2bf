"""The section of an inversion, from a run that the verb wrote."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.runs import Run
from doorward.inversion.invert import invert
from doorward.inversion.results import Inversion
from doorward.reports.page import compose
from doorward.reports.sarif import sarif
from tests.inversion.worlds import TARGET, row_classifier, row_images


def inverted(planted: bool) -> Inversion:
    settings = {"mask": {"steps": 200, "precision": "fp32"}, "margin": {"steps": 60}}
    return invert(row_classifier(planted), row_images(96), ["mask", "margin"], settings=settings)


@pytest.fixture(scope="module")
def inversion() -> Inversion:
    return inverted(True)


@pytest.fixture(scope="module")
def found(inversion: Inversion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inversion.save(tmp_path_factory.mktemp("report") / "found")


def test_a_backdoor_is_the_headline(found: Path) -> None:
    page = compose(found)
    (section,) = page.sections
    assert page.has_findings and f"A backdoor into class “row-{TARGET}”" in page.html
    assert section.verdict.level == "evidence" and "held-out images" in section.verdict.reasons[1]
    assert "Triggers on real images" in page.html and page.html.count("data:image/png") >= 12
    assert "Fails when" in page.html and "Natural backdoors" in page.html
    assert [c.flagged for c in section.checks] == [1, 1]


def test_the_clean_twin_says_what_was_looked_for(tmp_path: Path) -> None:
    page = compose(inverted(False).save(tmp_path / "clean"))
    assert not page.has_findings and "No class stands out" in page.html and "Fails when" in page.html


def test_the_result_is_the_same_after_the_disk(inversion: Inversion, found: Path, tmp_path: Path) -> None:
    again = Inversion.load(found)
    assert again.record == inversion.record and again.targets == (f"row-{TARGET}",)
    assert Run.read(found, "invert")["verdict"] == again.verdict == "evidence"
    assert again.rows() == inversion.rows() and len(again.rows()) == len(row_classifier().classes)
    (one,), (other,) = (i.stamps("mask", TARGET) for i in (inversion, again))
    assert torch.equal(one.alpha, other.alpha)  # type: ignore[attr-defined]
    pages = [result.report(tmp_path / f"{i}.html").read_text() for i, result in enumerate((inversion, again))]
    assert "Triggers on real images" in pages[0]
    assert len({re.sub(r"[0-9.]+ s<", "", page) for page in pages}) == 1, "but for the time that saving took"
    assert repr(inversion).startswith("<Inversion: A backdoor into class")


def test_findings_stand_in_sarif_with_a_location_and_a_level(inversion: Inversion, found: Path, tmp_path: Path) -> None:
    (run,) = sarif(compose(found).sections)["runs"]
    (failed,) = [r for r in run["results"] if r["kind"] == "fail"]
    assert failed["ruleId"] == "invert/mask" and failed["level"] == "error"
    assert failed["message"]["text"] == inversion.findings[0].sentence
    (place,) = failed["locations"]
    uri = place["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == f"found/triggers/mask_{TARGET}_0.safetensors" and (found.parent / uri).exists()
    (run,) = sarif(compose(inverted(False).save(tmp_path / "clean")).sections)["runs"]
    assert [(r["kind"], r["level"]) for r in run["results"]] == [("pass", "none")] * 2
    assert all(r["locations"] for r in run["results"])


def test_a_run_of_an_older_schema_is_refused_by_name(found: Path, tmp_path: Path) -> None:
    shutil.copytree(found, tmp_path / "old")
    manifest = read_json(found / "run.json")
    write_json(tmp_path / "old" / "run.json", {k: v for k, v in manifest.items() if k != "schema"})
    with pytest.raises(DoorwardError, match="schema 1, which doorward 0.1 reads; expected schema 2"):
        Inversion.load(tmp_path / "old")


def test_runs_that_contradict_themselves_are_refused(found: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(found, broken)
    manifest = read_json(broken / "run.json")
    manifest["results"]["targets"][0]["label"] = 77
    write_json(broken / "run.json", manifest)
    with pytest.raises(DoorwardError, match="classes out of order"):
        compose(broken)
