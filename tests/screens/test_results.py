"""What a screening says: flags against the rate, the same in memory and on disk."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from doorward.core.errors import DoorwardError
from doorward.core.runs import read_json, write_json
from doorward.reports.page import compose
from doorward.reports.sarif import sarif
from doorward.screens.base import threshold_at
from doorward.screens.results import Screening
from doorward.screens.screen import fit, load_screen, save_screen
from tests.screens.worlds import stamped, striped, stripes


def screening(flagged: int, images: int = 100, rate: float = 0.05, set_on: int = 10**6) -> Screening:
    scores = np.linspace(0, 1, images)
    threshold = 2.0 if flagged == 0 else float(scores[images - flagged]) - 1e-9
    return Screening.of(scores, threshold, "strip", {"weight": 0.5}, false_rejection=rate, set_on=set_on)


def test_with_many_images_behind_the_threshold_the_verdict_is_the_binomial_tail() -> None:
    for flagged in (0, 5, 9, 10, 40):
        found = screening(flagged)
        assert found.p_value == pytest.approx(binom.sf(flagged - 1, 100, 0.05), rel=2e-2)
        assert found.verdict == ("suspicious" if flagged >= 10 else "nothing found")
    assert screening(9, rate=0.03).verdict == "suspicious", "the rate decides what clean images explain"
    assert screening(0, images=0).verdict == "nothing found"


def test_few_images_behind_the_threshold_do_not_make_clean_images_suspicious() -> None:
    """A threshold from 100 clean images, 1,000 others screened by it: the binomial test alarms on a quarter."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(400):
        threshold = threshold_at(rng.random(100), 0.05)
        found = Screening.of(rng.random(1000), threshold, "strip", false_rejection=0.05, set_on=100)
        alarms += found.verdict == "suspicious"
    assert alarms <= 32  # 20 expected; binomial, probability of more 0.4 %


def test_flagged_images_are_written_by_name_worst_first(tmp_path: Path) -> None:
    found = replace(screening(3, 20), ids=[f'a, "{k}".png' for k in range(20)])
    assert [name for name, *_ in found.flagged()] == [f'a, "{k}".png' for k in (19, 18, 17)]
    found.write(tmp_path)
    rows = list(csv.reader((tmp_path / "flagged.csv").open()))
    assert rows == [["id", "decided as", "score"], *([f'a, "{k}".png', "", f"{k / 19:.4f}"] for k in (19, 18, 17))]
    screening(0).write(tmp_path)
    assert (tmp_path / "flagged.csv").read_text() == "id,decided as,score\n"


def test_the_table_names_every_image_and_the_repr_is_short() -> None:
    found = screening(3, 20)
    rows = found.rows()
    assert [r["index"] for r in rows] == list(range(20)) and sum(r["flag"] for r in rows) == 3
    assert rows[-1] == {"index": 19, "score": 1.0, "flag": True}
    named = replace(found, ids=[f"{k}.png" for k in range(20)]).rows()
    assert named[0] == {"id": "0.png", "score": 0.0, "flag": False}
    shown = repr(screening(40)).splitlines()
    assert shown[0] == "<Screening: Stamped images among them: strip flags 40 of 100 images, p = 6.3e-26>"
    assert len(shown) == 2 and "5.0 % are flagged" in shown[1]
    (finding,) = screening(40).findings
    assert finding.images == tuple(range(99, 59, -1)) and (finding.flagged, finding.size) == (40, 100)
    assert not screening(9).findings
    with pytest.raises(DoorwardError, match="columns of lengths"):
        replace(found, ids=["one"])


@pytest.mark.parametrize("named", [False, True])
def test_a_screening_is_the_same_after_the_disk(named: bool, tmp_path: Path) -> None:
    found = replace(screening(7, 30), ids=tuple(f"a/{k}.png" for k in range(30)) if named else None)
    found.save(tmp_path / "run")
    again = Screening.load(tmp_path / "run")
    assert again.record == found.record and again.rows() == found.rows() and again.ids == found.ids
    manifest = read_json(tmp_path / "run" / "run.json")
    write_json(tmp_path / "run" / "run.json", {**manifest, "results": {**manifest["results"], "threshold": "high"}})
    with pytest.raises(DoorwardError, match="results.threshold.*expected a run of this version"):
        Screening.load(tmp_path / "run")
    write_json(tmp_path / "run" / "run.json", {**manifest, "results": {**manifest["results"], "screened": 31}})
    with pytest.raises(DoorwardError, match="columns of lengths"):
        Screening.load(tmp_path / "run")
    write_json(tmp_path / "run" / "run.json", {**manifest, "schema": 1})
    with pytest.raises(DoorwardError, match="schema 1, which doorward 0.1 reads; expected schema 2"):
        Screening.load(tmp_path / "run")


def test_a_screening_is_reported_and_stands_in_sarif_with_its_images(tmp_path: Path) -> None:
    page = screening(40).report(tmp_path / "page.html").read_text()
    assert "strip flags 40 of 100 images" in page and "Fails when" in page
    (run,) = sarif(compose(screening(40).save(tmp_path / "run")).sections)["runs"]
    (failed,) = run["results"]
    assert (failed["ruleId"], failed["kind"], failed["level"]) == ("screen/strip", "fail", "warning")
    places = failed["locations"]
    assert len(places) == 40 and places[0]["logicalLocations"][0]["name"] == "image 99"
    assert places[0]["physicalLocation"]["artifactLocation"]["uri"] == "run/samples.parquet"
    (run,) = sarif(compose(screening(0).save(tmp_path / "clean")).sections)["runs"]
    assert [(r["kind"], bool(r["locations"])) for r in run["results"]] == [("pass", True)]


def test_a_screen_says_how_it_was_made_also_after_the_disk(tmp_path: Path) -> None:
    net = striped()
    made = fit(net, stripes(seed=1), false_rejection=0.1, settings={"overlays": 8})
    save_screen(made, tmp_path / "screen.safetensors")
    for one in (made, load_screen(tmp_path / "screen.safetensors", net)):
        clean, caught = one(stripes(300, seed=2).pixels), one(stamped(stripes(seed=2)))
        assert (caught.record.method, caught.record.false_rejection) == ("strip", 0.1)
        assert caught.record.settings == {"overlays": 8, "weight": 0.5}
        assert caught.verdict == "suspicious" and clean.verdict == "nothing found"
