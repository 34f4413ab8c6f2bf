import json
from typing import Any

import pytest

from doorward.reports.page import compose
from doorward.reports.sarif import sarif


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
