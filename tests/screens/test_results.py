"""What a screening says: flags against the rate, the same in memory and on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from doorward.core.errors import DoorwardError
from doorward.core.runs import read_json, write_json
from doorward.screens.results import Screening
from doorward.screens.screen import fit, load_screen, save_screen
from tests.screens.worlds import stamped, striped, stripes


def screening(flagged: int, images: int = 100, rate: float = 0.05) -> Screening:
    scores = np.linspace(0, 1, images)
    threshold = 2.0 if flagged == 0 else float(scores[images - flagged]) - 1e-9
    return Screening(scores, threshold, scores > threshold, "strip", {"weight": 0.5}, rate)


def test_the_verdict_is_the_binomial_tail_at_the_false_rejection_rate() -> None:
    for flagged in (0, 5, 9, 10, 40):
        found = screening(flagged)
        assert found.p_value == pytest.approx(binom.sf(flagged - 1, 100, 0.05), rel=1e-9)
        assert found.verdict == ("suspicious" if flagged >= 10 else "nothing found")
    assert screening(9, rate=0.03).verdict == "suspicious", "the rate decides what clean images explain"
    assert screening(0, images=0).verdict == "nothing found"


def test_the_table_names_every_image_and_the_repr_is_short() -> None:
    found = screening(3, 20)
    rows = found.table()
    assert [r["index"] for r in rows] == list(range(20)) and sum(r["flag"] for r in rows) == 3
    assert rows[-1] == {"index": 19, "score": 1.0, "flag": True}
    named = replace(found, ids=[f"{k}.png" for k in range(20)]).table()
    assert named[0] == {"id": "0.png", "score": 0.0, "flag": False}
    assert repr(screening(40)) == "Screening(strip: 40 of 100 images flagged, p 6.2e-26, suspicious)"
    with pytest.raises(DoorwardError, match="columns of lengths"):
        replace(found, ids=["one"])


@pytest.mark.parametrize("named", [False, True])
def test_a_screening_is_the_same_after_the_disk(named: bool, tmp_path: Path) -> None:
    found = replace(screening(7, 30), ids=tuple(f"a/{k}.png" for k in range(30)) if named else None)
    found.save(tmp_path / "run")
    again = Screening.load(tmp_path / "run")
    assert again.json() == found.json() and again.table() == found.table() and again.ids == found.ids
    manifest = read_json(tmp_path / "run" / "run.json")
    for damage, match in (({"schema": 2}, "schema 2; expected 1"), ({"threshold": "high"}, "not a screening")):
        broken = {**manifest, "results": {"screening": {**manifest["results"]["screening"], **damage}}}
        write_json(tmp_path / "run" / "run.json", broken)
        with pytest.raises(DoorwardError, match=match):
            Screening.load(tmp_path / "run")


def test_a_screen_says_how_it_was_made_also_after_the_disk(tmp_path: Path) -> None:
    net = striped()
    made = fit(net, stripes(seed=1), false_rejection=0.1, settings={"overlays": 8})
    save_screen(made, tmp_path / "screen.safetensors")
    for one in (made, load_screen(tmp_path / "screen.safetensors", net)):
        clean, caught = one(stripes(300, seed=2).pixels), one(stamped(stripes(seed=2)))
        assert (caught.method, caught.false_rejection) == ("strip", 0.1)
        assert caught.settings == {"overlays": 8, "weight": 0.5}
        assert caught.verdict == "suspicious" and clean.verdict == "nothing found"
