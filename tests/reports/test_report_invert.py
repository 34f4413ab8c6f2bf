"""The section of an inversion, from a run that the verb wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.core.errors import DoorwardError
from doorward.core.files import read_json, write_json
from doorward.core.runs import Run
from doorward.inversion.files import save_inversion
from doorward.inversion.invert import invert
from doorward.reports.page import compose
from tests.inversion.worlds import TARGET, row_classifier, row_images


def make_run(folder: Path, planted: bool) -> Path:
    images = row_images(96)
    settings = {"mask": {"steps": 200, "precision": "fp32"}, "margin": {"steps": 60}}
    inversion = invert(row_classifier(planted), images, ["mask", "margin"], settings=settings)
    with Run(folder, "invert", {"model": "rows.pth"}) as run:
        run.results = {**save_inversion(inversion, images, run.work, 0), "model": "rows.pth", "warnings": []}
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report") / "found", True)


def test_a_backdoor_is_the_headline(found: Path) -> None:
    page = compose(found)
    (section,) = page.sections
    assert page.has_findings and f"A backdoor into class “row-{TARGET}”" in page.html
    assert section.verdict.level == "evidence" and "held-out images" in section.verdict.reasons[1]
    assert "Triggers on real images" in page.html and page.html.count("data:image/png") >= 12
    assert "Fails when" in page.html and "Natural backdoors" in page.html
    assert [c.flagged for c in section.checks] == [1, 1]


def test_the_clean_twin_says_what_was_looked_for(tmp_path: Path) -> None:
    page = compose(make_run(tmp_path / "clean", False))
    assert not page.has_findings and "No class stands out" in page.html and "Fails when" in page.html


def test_runs_that_contradict_themselves_are_refused(found: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(found, broken)
    manifest = read_json(broken / "run.json")
    manifest["results"]["targets"][0]["label"] = 77
    write_json(broken / "run.json", manifest)
    with pytest.raises(DoorwardError, match="classes out of order"):
        compose(broken)
