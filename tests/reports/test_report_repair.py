"""The section of a repair run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doorward.core.errors import DoorwardError
from doorward.core.files import read_json, write_json
from doorward.core.stats import Rate
from doorward.reports.page import compose
from tests.reports.conftest import write_run


def arm(name: str, role: str, asr: int | None, accuracy: int = 196, method: str | None = None) -> dict[str, Any]:
    rate = None if asr is None else Rate(asr, 180).json()
    return {
        "name": name, "role": role, "method": name if method is None else method,
        "accuracy": Rate(accuracy, 200).json(), "asr": rate,
        "targets": {"0": rate} if rate else {}, "seconds": 1.5, "settings": {"epochs": 10},
        "given": ["classifier", "clean_images"], "knowledge": ["clean_images"], "warnings": [], "folder": ".",
    }  # fmt: skip


def repair_run(folder: Path, after: int | None = 2, before: int | None = 168) -> Path:
    images = {
        "name": "photos", "sha256": "ab" * 32, "classes": ["cat", "dog"], "counts": [500, 500], "shape": [1, 8, 8],
        "fitted": 800, "held_out": 200,
    }  # fmt: skip
    used = {"run": "runs/inverted", "targets": [{"class": "cat", "label": 0, "method": "mesa", "stamps": 1}]}
    results = {
        "model": "model", "source": "photos", "images": images, "triggers": None if before is None else used,
        "arms": [
            arm("as given", "given", before, method=""), arm("retrain", "repair", after),
            arm("fine-tune", "control", None if before is None else 160),
            arm("oracle", "oracle", None if before is None else 1, method="retrain"),
        ],
        "warnings": ["<b>beware</b>"], "clean_images": 1000, "knowledge": ["clean_images"],
        "steps": [{"name": "as given", "accuracy": Rate(0, 0).json()}], "details": {},
    }  # fmt: skip
    write_run(folder, "repair", results)
    return folder


def test_all_arms_stand_in_the_table_with_their_intervals(tmp_path: Path) -> None:
    page = compose(repair_run(tmp_path / "repaired"))
    (section,) = page.sections
    assert page.title == "Repair of model" and section.verdict.level == "repaired" and not page.has_findings
    assert section.verdict.headline == "The triggers succeed on 93.3 % of images before and on 1.1 % after retrain"
    assert "Without triggers, fine-tune leaves 88.9 %." in section.verdict.reasons
    for words in ("before any repair", "control arm: no triggers", "oracle: told the true trigger", "found by", "mesa"):
        assert words.lower() in page.html.lower()
    assert page.html.count('class="interval"') == 4 * 2 + 2, "a rate each for success and accuracy, and the axes"
    assert "&lt;b&gt;beware" in page.html and "<b>beware" not in page.html
    assert "Fails when" in page.html and "Backdoors asleep" in page.html
    assert "Against the ground truth" not in page.html and "Step by step" not in page.html, "nothing was measured there"
    assert section.overview["Triggers succeed"].text == "1.1 %"


def test_triggers_that_still_work_are_a_finding(tmp_path: Path) -> None:
    page = compose(repair_run(tmp_path / "repaired", after=90))
    assert page.has_findings and page.sections[0].verdict.level == "not repaired"
    assert "the triggers still succeed on 50.0 % of images; before, on 93.3 %" in page.html


def test_without_triggers_nothing_is_claimed(tmp_path: Path) -> None:
    page = compose(repair_run(tmp_path / "repaired", after=None, before=None))
    assert page.sections[0].verdict.headline == "Repaired by retrain; its effect on a backdoor was not measured"


def test_a_run_of_one_method_alone_shows_its_steps(tmp_path: Path) -> None:
    steps = [{"name": n, "accuracy": Rate(k, 100).json()} for n, k in (("as given", 97), ("3 channels pruned", 95))]
    results = {"clean_images": 500, "knowledge": ["clean_images"], "steps": steps, "details": {}, "warnings": []}
    write_run(tmp_path / "pruned", "repair", results, model="models/net", method="prune")
    page = compose(tmp_path / "pruned")
    (section,) = page.sections
    assert "Step by step" in page.html and "3 channels pruned" in page.html and "95.0 %" in page.html
    assert section.verdict.headline == "Repaired by prune; its effect on a backdoor was not measured"
    assert section.overview["Clean accuracy"].text == "95.0 %" and "all arms" not in page.html


def test_what_was_computed_with_the_truth_stands_apart(tmp_path: Path) -> None:
    run = repair_run(tmp_path / "repaired")
    row = {"name": "retrain", "clean_accuracy": Rate(97, 100).json(), "asr": Rate(3, 90).json()}
    attack = {"recipe": "patch", "description": "any class -> cat", "poisoned": 20, "targets": [0]}
    write_json(run / "score.json", {"attack": attack, "methods": {}, "models": [row]})
    html = compose(run).html
    assert "Against the ground truth" in html and "3.3 %" in html and "any class -&gt; cat" in html


def test_a_run_that_was_cut_short_is_one_line(tmp_path: Path) -> None:
    run = repair_run(tmp_path / "repaired")
    manifest = read_json(run / "run.json")
    manifest["results"]["arms"][1]["role"] = "hero"
    write_json(run / "run.json", manifest)
    with pytest.raises(DoorwardError, match="results.arms.1.role"):
        compose(run)
