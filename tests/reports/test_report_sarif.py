import json
from pathlib import Path
from typing import Any

import pytest

from doorward.audits.results import Audit
from doorward.core.results import Level
from doorward.reports import sarif as module
from doorward.reports.page import compose
from doorward.reports.sarif import sarif
from tests.audits.records import made_alone, made_audit, made_images


@pytest.fixture
def log(make_run: Any) -> dict[str, Any]:
    log = sarif(compose(make_run()).sections)
    json.dumps(log, allow_nan=False)
    return log


def test_one_result_per_method_and_class(log: dict[str, Any]) -> None:
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    failed = [r for r in run["results"] if r["kind"] == "fail"]
    assert {(r["ruleId"], r["properties"]["label"]) for r in failed} == {
        ("cleanse/impurity", 0), ("cleanse/activation", 0), ("cleanse/spectral", 0),
    }  # fmt: skip
    assert all(r["level"] == "error" for r in failed)


def test_a_told_method_alone_asks_for_review(log: dict[str, Any]) -> None:
    reviews = [r for r in log["runs"][0]["results"] if r["kind"] == "review"]
    assert reviews and {r["ruleId"] for r in reviews} == {"cleanse/spectral"}
    # SARIF 2.1.0, 3.27.10: a result that is no failure has level `none`
    assert all(r["level"] == "none" for r in reviews)


def test_rules_are_named_by_index_and_taxa_are_listed(log: dict[str, Any]) -> None:
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert 1 <= len(result["locations"]) <= 100
        for taxon in result.get("taxa", []):
            assert run["taxonomies"][0]["taxa"][taxon["index"]]["id"] == taxon["id"] == "AML.T0020"


def test_locations_name_the_worst_images(make_run: Any) -> None:
    page = compose(make_run())
    first = sarif(page.sections)["runs"][0]["results"][0]
    names = [place["logicalLocations"][0]["name"] for place in first["locations"]]
    assert names == [f"image {i}" for i in page.sections[0].findings[0].images]
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "run/samples.parquet"


def test_methods_without_findings_pass(make_run: Any) -> None:
    log = sarif(compose(make_run(poisoned=0, kinds=("impurity", "activation"))).sections)
    assert [(r["kind"], r["level"]) for r in log["runs"][0]["results"]] == [("pass", "none")] * 2


def test_fingerprints_stay_with_the_images_and_differ_by_class_and_method(make_run: Any) -> None:
    def prints(name: str, **options: Any) -> list[str]:
        results = sarif(compose(make_run(name, **options)).sections)["runs"][0]["results"]
        return [r["partialFingerprints"]["classAndMethod/v1"] for r in results if r["kind"] != "pass"]

    first = prints("one", seed=5)
    assert len(set(first)) == len(first)
    assert set(prints("two", seed=5, kinds=("impurity",))) <= set(first)
    assert not set(prints("three", seed=6)) & set(first)


def test_a_relative_folder_is_named_as_given(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("a/my run")
    monkeypatch.chdir(run.parent.parent)
    location = sarif(compose("a/my run").sections)["runs"][0]["results"][0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "a/my%20run/samples.parquet"


def test_nothing_of_the_machine_leaks(make_run: Any, tmp_path: Any) -> None:
    assert str(tmp_path) not in json.dumps(sarif(compose(make_run()).sections))


def of_audit(found: Audit, folder: Path) -> dict[str, Any]:
    log = sarif(compose(found.save(folder)).sections)
    json.dumps(log, allow_nan=False)
    (run,) = log["runs"]
    made: dict[str, Any] = run
    return made


@pytest.mark.parametrize(("level", "shown"), [("planted", "error"), ("evidence", "error"), ("suspicious", "warning")])
def test_an_audit_has_one_result_per_suspect(level: Level, shown: str, tmp_path: Path) -> None:
    found = made_audit(level)
    run = of_audit(found, tmp_path / "audit")
    assert [
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]
    ] == found.suspects()
    assert {(r["ruleId"], r["ruleIndex"], r["kind"], r["level"]) for r in run["results"]} == {
        ("audit/audit", 0, "fail", shown)
    }
    ranks = [r["rank"] for r in run["results"]]
    assert ranks == sorted(ranks, reverse=True) and min(ranks) >= 0 and max(ranks) <= 100
    taxa = run["taxonomies"][0]["taxa"]
    assert {taxa[t["index"]]["id"] for r in run["results"] for t in r["taxa"]} == {"AML.T0020"}


def test_a_suspect_keeps_its_fingerprint_in_another_set(tmp_path: Path) -> None:
    def prints(found: Audit, name: str) -> dict[str, str]:
        return {
            r["message"]["text"].split(" ")[0]: r["partialFingerprints"]["imageAndClass/v1"]
            for r in of_audit(found, tmp_path / name)["results"]
        }

    first, second = prints(made_audit(), "a"), prints(made_audit("suspicious", made_images(poisoned=10)), "b")
    assert first == second and len(set(first.values())) == len(first) == 20
    plain = [
        prints(made_audit(images=made_images(poisoned=n, named=False)), f"plain-{n}") for n in (20, 10)
    ]  # numbers name nothing without the set
    assert plain[0].keys() == plain[1].keys() and not set(plain[0].values()) & set(plain[1].values())


def test_an_audit_that_found_nothing_passes(tmp_path: Path) -> None:
    (result,) = of_audit(made_audit("nothing found"), tmp_path / "audit")["results"]
    assert (result["kind"], result["level"]) == ("pass", "none")


def test_a_model_alone_is_accused_as_a_whole(tmp_path: Path) -> None:
    run = of_audit(made_alone(), tmp_path / "audit")
    (result,) = run["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "audit/triggers/7.safetensors"
    assert run["taxonomies"][0]["taxa"][result["taxa"][0]["index"]]["id"] == "AML.T0018"


def test_more_suspects_than_services_keep_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_RESULTS", 5)
    run = of_audit(made_audit(), tmp_path / "audit")
    assert len(run["results"]) == 5 and run["properties"]["suspectsNotListed"] == 15
