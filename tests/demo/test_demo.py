"""The demo's folder and table; the demo as a whole runs on one scenario."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from doorward.audits.results import Audit
from doorward.cleansers.results import Cleansing
from doorward.core.errors import OutputExistsError
from doorward.core.images import ImageSet
from doorward.demo.run import SCENARIOS, demo, prepare, steps
from doorward.demo.table import _range, markdown, rows
from doorward.inversion.results import Inversion
from doorward.scoring.results import ScoreRecord
from tests.audits.records import made_audit
from tests.light import audit_briefly, lighten, look_briefly


def test_mean_and_range() -> None:
    assert _range([0.5, 0.7]) == "60.0 (50.0 to 70.0)" and _range([0.5, 0.5]) == "50.0" and _range([None, None]) == "-"


def test_a_folder_of_other_things_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="was not written by the demo"):
            prepare(tmp_path, [1], overwrite)
    prepare(tmp_path / "demo", [1], False)
    prepare(tmp_path / "demo", [1], False)  # goes on
    with pytest.raises(OutputExistsError, match="demo of other seeds"):
        prepare(tmp_path / "demo", [2], False)


def test_the_control_alone_runs_from_end_to_end_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lighten(monkeypatch)
    monkeypatch.setattr("doorward.audits.job.audit", lambda images, *_, **__: made_audit("nothing found", images, []))
    control = SCENARIOS[-1:]
    monkeypatch.setattr("doorward.demo.run.TRAINING", {"epochs": 1, "batch": 64, "lr": 0.05})
    monkeypatch.setattr("doorward.demo.table.SCENARIOS", control)
    stages: list[str] = []
    report = demo(tmp_path, 3, progress=lambda stage, done, total: stages.append(stage), scenarios=control)
    assert len(stages) == steps(control) and "clean-control" in report.read_text()
    before = (tmp_path / "clean-control" / "model" / "run.json").stat().st_mtime_ns
    demo(tmp_path, 3, scenarios=control)
    assert (tmp_path / "clean-control" / "model" / "run.json").stat().st_mtime_ns == before, "finished: not run again"
    table = rows([tmp_path])
    assert [row[:2] for row in table] == [["clean-control", m] for m in ("audit", "impurity", "activation", "spectral")]
    assert all(row[2] == "-" and row[4] == "-" for row in table)
    assert "--seed 3 --seeds 1" in markdown([tmp_path], [3])


def half(folder: Path, digits: tuple[ImageSet, ImageSet]) -> str:
    """Every second digit, as a source."""
    train, test = (part.subset(np.arange(0, len(part), 2)) for part in digits)
    arrays = {"x_train": train.pixels, "y_train": train.labels, "x_test": test.pixels, "y_test": test.labels}
    np.savez(folder / "half.npz", **arrays)
    return str(folder / "half.npz")


@pytest.mark.slow
def test_the_patch_goes_down_to_its_inverted_and_repaired_half(
    tmp_path: Path, digits: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    lighten(monkeypatch)
    audit_briefly(monkeypatch)
    patch = [s for s in SCENARIOS if s.repaired]
    monkeypatch.setattr("doorward.demo.run.SOURCE", half(tmp_path, digits))
    monkeypatch.setattr("doorward.demo.run.TRAINING", {"epochs": 4, "batch": 32, "lr": 0.05})
    monkeypatch.setattr("doorward.demo.run.METHODS", ("impurity",))
    monkeypatch.setattr("doorward.demo.model.REFERENCES", 0)
    look_briefly(monkeypatch, steps=60)
    stages: list[str] = []
    made = demo(tmp_path / "demo", 5, progress=lambda stage, done, total: stages.append(stage), scenarios=patch)
    assert len(stages) == steps(patch)
    place = tmp_path / "demo" / "patch-3x3"
    assert Cleansing.load(place / "cleanse").targets == ("0",)
    assert Audit.load(place / "audit").targets == ("0",)
    assert "0" in Inversion.load(place / "inverted").targets
    score = ScoreRecord.read(place / "repaired")
    assert score is not None
    scored = {m.name: m for m in score.models}
    before, after = scored["as given"].asr, scored["retrain"].asr
    assert before is not None and after is not None and before.low > 0.9 and after.high < 0.2
    page = made.read_text()
    assert "A backdoor into class" in page and "repaired" in page
