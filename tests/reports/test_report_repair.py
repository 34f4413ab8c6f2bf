"""The section of a repair run."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.results import RateRecord
from doorward.core.stats import Rate
from doorward.repairs.arms import Role
from doorward.repairs.files import arm_folder
from doorward.repairs.results import (
    ArmRecord,
    ProofRecord,
    Repair,
    RepairedRecord,
    RepairRecord,
    StandingRecord,
    StepRecord,
    TargetRecord,
    TriggersRecord,
    UsedImages,
    VariationRecord,
)
from doorward.repairs.verdict import judge, nothing_to_repair
from doorward.reports.page import compose
from doorward.reports.sarif import sarif
from tests.reports.conftest import write_run


def shown(p: float, varied: int, size: float) -> ProofRecord:
    standing = StandingRecord(method="mask", label=0, size=size, others=50, smallest=40, p_value=p)
    variation = VariationRecord(label=0, success=RateRecord.of(Rate(varied, 180)), natural=0.01)
    return ProofRecord(seed=9, images=1000, p_values={0: p}, standings=(standing,), variations=(variation,))


def arm(
    name: str, role: Role, asr: int | None, accuracy: int = 196, method: str | None = None, number: int = 1
) -> ArmRecord:
    rate = None if asr is None else RateRecord.of(Rate(asr, 180))
    steps = (StepRecord(name="as given", accuracy=RateRecord.of(Rate(0, 0))),)
    return ArmRecord(
        name=name, role=role, method=name if method is None else method, accuracy=RateRecord.of(Rate(accuracy, 200)),
        asr=rate, targets={0: rate} if rate else {}, seconds=1.5, settings={"epochs": 10},
        given=("classifier", "clean_images", "triggers"), knowledge=("clean_images",), steps=steps,
        folder=arm_folder(number, name), proof=shown(0.9, 2, 61.5) if role == "repair" and asr is not None else
        shown(0.001, 90, 4.25) if role == "given" and asr is not None else None,
    )  # fmt: skip


def repair_run(folder: Path, after: int | None = 2, before: int | None = 168) -> Path:
    images = UsedImages(
        name="photos", sha256="ab" * 32, classes=("cat", "dog"), counts=(500, 500), shape=(1, 8, 8),
        fitted=800, held_out=200,
    )  # fmt: skip
    used = TriggersRecord(
        run="runs/inverted", targets=(TargetRecord(class_name="cat", label=0, method="mesa", stamps=1),)
    )
    arms = (
        arm("as given", "given", before, method="", number=0), arm("retrain", "repair", after),
        arm("fine-tune", "control", None if before is None else 160, number=2),
        arm("oracle", "oracle", None if before is None else 1, method="retrain", number=3),
    )  # fmt: skip
    judgement, findings = judge(arms, images.classes)
    record = RepairRecord(
        judgement=judgement, findings=findings, model="model", source="photos", images=images, arms=arms,
        classifier=RepairedRecord(arch="small-cnn", classes=2, shape=(1, 8, 8)),
        triggers=None if before is None else used, warnings=("<b>beware</b>",),
    )  # fmt: skip
    write_run(folder, "repair", record.model_dump(mode="json"))
    return folder


def test_all_arms_stand_in_the_table_with_their_intervals(tmp_path: Path) -> None:
    page = compose(repair_run(tmp_path / "repaired"))
    (section,) = page.sections
    assert page.title == "Repair of model" and section.verdict.level == "repaired" and not page.has_findings
    assert section.verdict.headline == "After retrain the target stands out no more (p = 0.9)"
    assert "Without triggers, fine-tune leaves the found ones at 88.9 %." in section.verdict.reasons
    assert "The found triggers succeed on 93.3 % before and 1.1 % after" in section.verdict.reasons[-1]
    place = [page.html.index(words) for words in ("The proof", "Before and after", "Triggers that were used")]
    assert place == sorted(place), "the proof leads"
    assert "61.5" in page.html and "4.25" in page.html, "the target's size after and before"
    for words in ("before any repair", "control arm: no triggers", "oracle: told the true trigger", "found by", "mesa"):
        assert words.lower() in page.html.lower()
    assert page.html.count('class="interval"') == 4 * 2 + 2, "a rate each for success and accuracy, and the axes"
    assert "&lt;b&gt;beware" in page.html and "<b>beware" not in page.html
    assert "Fails when" in page.html and "Backdoors asleep" in page.html
    assert "Against the ground truth" not in page.html and "Step by step" not in page.html, "nothing was measured there"
    assert section.overview["Variations succeed"].text == "1.1 %"
    assert section.overview["Trained-against triggers succeed"].text == "1.1 %"


def test_triggers_that_still_work_are_a_finding(tmp_path: Path) -> None:
    page = compose(repair_run(tmp_path / "repaired", after=90))
    assert page.has_findings and page.sections[0].verdict.level == "not repaired"
    assert "After retrain “cat” is still a target" in page.html and "themselves still succeed on 50.0 %" in page.html


def test_where_there_is_nothing_to_repair_the_page_says_so(tmp_path: Path) -> None:
    run = repair_run(tmp_path / "whole")
    manifest = read_json(run / "run.json")
    judgement = nothing_to_repair("runs/inverted")
    given = arm("as given", "given", None, method="", number=0).model_copy(update={"given": (), "knowledge": ()})
    manifest["results"] |= {
        "judgement": judgement.model_dump(mode="json"), "findings": [], "arms": [given.model_dump(mode="json")],
        "triggers": {"run": "runs/inverted", "targets": []},
    }  # fmt: skip
    write_json(run / "run.json", manifest | {"verdict": judgement.level})
    page = compose(run)
    (section,) = page.sections
    assert section.verdict.level == "nothing found" and not page.has_findings
    assert "accuses no class" in page.html and "Methods and settings" not in page.html
    assert "Nothing was done to the model" in page.html and "Fails when" not in page.html
    assert section.overview["Method"].text == "none" and section.overview["Clean accuracy"].text == "98.0 %"
    assert sarif(page.sections)["runs"] == [], "no method was run"


def test_without_triggers_nothing_is_claimed(tmp_path: Path) -> None:
    page = compose(repair_run(tmp_path / "repaired", after=None, before=None))
    assert page.sections[0].verdict.headline == "Repaired by retrain; its effect on a backdoor was not measured"


def test_the_steps_of_the_first_method_are_shown(tmp_path: Path) -> None:
    run = repair_run(tmp_path / "pruned", after=None, before=None)
    manifest = read_json(run / "run.json")
    steps = [{"name": n, "accuracy": Rate(k, 100).json()} for n, k in (("as given", 97), ("3 channels pruned", 95))]
    manifest["results"]["arms"][1]["steps"] = steps
    write_json(run / "run.json", manifest)
    html = compose(run).html
    assert "Step by step" in html and "3 channels pruned" in html and "95.0 %" in html


def test_triggers_that_still_work_stand_in_sarif_with_a_location(tmp_path: Path) -> None:
    (run,) = sarif(compose(repair_run(tmp_path / "repaired", after=90)).sections)["runs"]
    failed, passed = ([r for r in run["results"] if r["kind"] == kind] for kind in ("fail", "pass"))
    assert [(r["ruleId"], r["level"], r["properties"]["class"]) for r in failed] == [
        ("repair/retrain", "warning", "cat")
    ]
    assert failed[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "repaired/weights.safetensors"
    assert {r["ruleId"] for r in passed} == {"repair/fine-tune"} and all(r["locations"] for r in passed)


def test_the_verdict_of_the_run_is_that_of_the_page(tmp_path: Path) -> None:
    run = repair_run(tmp_path / "repaired")
    (section,) = compose(run).sections
    assert section.verdict == Repair.read(run, section.run.manifest.results).record.judgement
    manifest = read_json(run / "run.json")
    write_json(run / "run.json", {**manifest, "schema": 1})
    with pytest.raises(DoorwardError, match="schema 1, which doorward 0.1 reads; expected schema 2"):
        Repair.load(run)


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
