"""certify and verify on the command line, and the figure they reproduce."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from doorward.certification.certificate import Certificate
from doorward.certification.results import CertifyRecord
from doorward.core.results import read_record
from doorward.core.runs import Run
from doorward.papers import smoothing_mnist17 as paper
from tests.cli.conftest import Call

DIGITS = ("--classes", "1,7", "--train", 60, "--test", 100)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certify") / "run"


def test_a_certificate_is_made_verified_and_rejected_when_tampered_with(run: Path, call: Call) -> None:
    made = call("certify", "mnist-5k", *DIGITS, "--learner", "nearest-centroid", "--trials", 2000, "-o", run, "--json")
    assert made.code == 0 and made.json["trials"] == 2000
    curve = made.json["certified_accuracy"]
    assert made.json["clean_accuracy"] == curve["0"] >= curve["1"] > 0.5
    record = read_record(CertifyRecord, run, "certify")
    assert record.model_dump(mode="json") == made.json and Run.read(run)["verdict"] == "certificate"
    file = run / "certificate.json"
    verified = call("verify", file, "--json")
    assert verified.code == 0 and {k: verified.json[k] for k in ("valid", "problems", "images", "method")} == {
        "valid": True,
        "problems": [],
        "images": 100,
        "method": "flip-smoothing",
    }
    meaning = verified.json["meaning"]
    assert (meaning["alpha"], meaning["confidence"], meaning["trials"]) == ("1/1000", "99.9 %", 2000)
    assert meaning["noise"]["training labels"]["cells"] == 60 and "training labels" in meaning["threat"]
    certificate = json.loads(file.read_text())
    assert meaning["data"] == certificate["data"] and verified.json["warnings"] == []
    certificate["radii"][0] += 1
    (run.parent / "forged.json").write_text(json.dumps(certificate))
    forged = call("verify", run.parent / "forged.json")
    assert forged.code == 1 and "rejected" in forged.err
    other = call("verify", file, "--train-sha256", "0" * 64)
    assert other.code == 1 and "not that of the data given" in other.err


def test_the_same_seed_gives_the_same_votes(run: Path, call: Call) -> None:
    again = run.parent / "again"
    workers = ("--workers", 2)
    call("certify", "mnist-5k", *DIGITS, "--learner", "nearest-centroid", "--trials", 2000, *workers, "-o", again)
    first, second = (json.loads((f / "certificate.json").read_text()) for f in (run, again))
    assert first["votes"] == second["votes"] and first["sha256"] == second["sha256"]


def test_the_data_are_drawn_again_and_trials_replayed(run: Path, call: Call) -> None:
    file, data = run / "certificate.json", ("--data", "mnist-5k")
    checked = call("verify", file, *data, "--replay", 20, "--seed", 4, "--json")
    found = checked.json["with_data"]
    assert checked.code == 0 and len(found["replayed"]) == 20 and found["seed"] == 4
    assert found["caught"]["0.1"] == pytest.approx(1 - 0.9**20)
    told = call("verify", file, *data, "--replay", 20)
    assert told.code == 0 and "1 - (1 - f)^20" in told.out and "confidence 99.9 %" in told.out
    other = call("verify", file, *data, "--test", "mnist-5k")
    assert other.code == 1 and "train_sha256" in other.err
    for options in (("--replay", 20), ("--test", "mnist-5k")):
        assert "expected --data" in call("verify", file, *options).err


def test_a_certificate_of_an_older_version_needs_its_run_or_the_test_images(run: Path, call: Call) -> None:
    true = Certificate.load(run / "certificate.json")
    settings = {k: v for k, v in true.settings.items() if k != "draw"}
    folder = run.parent / "older"
    folder.mkdir()
    replace(true, settings=settings, trial_votes=None).save(folder / "certificate.json")
    answer = call("verify", folder / "certificate.json", "--data", "mnist-5k")
    assert answer.code == 2 and "does not say how its images were drawn" in answer.err
    shutil.copy(run / "run.json", folder)
    assert call("verify", folder / "certificate.json", "--data", "mnist-5k").code == 0
    answer = call("verify", folder / "certificate.json", "--data", "mnist-5k", "--replay", 5)
    assert answer.code == 2 and "binds no file" in answer.err and len(answer.err.strip().splitlines()) == 1
    replace(true, settings={**settings, "draw": {"train": -1, "test": 1}}).save(folder / "certificate.json")
    answer = call("verify", folder / "certificate.json", "--data", "mnist-5k")
    assert answer.code == 2 and "train" in answer.err and len(answer.err.strip().splitlines()) == 1


def test_it_is_reported_with_what_exactly_is_guaranteed(run: Path, call: Call) -> None:
    page = run.parent / "report.html"
    assert call("report", run, "-o", page).code == 0
    assert "no attacker who changes at most" in page.read_text()


def test_a_deterministic_certificate(run: Path, call: Call) -> None:
    made = call("certify", "mnist-5k", *DIGITS, "--learner", "nearest-neighbours", "-o", run.parent / "nn", "--json")
    assert made.json["certified_accuracy"]["2"] > 0.6 and made.json["trials"] == 0
    assert call("verify", run.parent / "nn" / "certificate.json").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trials", 10_000, "--radius", 3), "expected at least 10,069 trials"),
        (("--keep", "0.5"), "keep"),
        (("--keep", "1"), "keep"),
        (("--keep", "often"), "often"),
        (("--alpha", "0"), "alpha"),
        (("--classes", "1"), "at least two"),
        (("--classes", "1,12"), "class '12'"),
        (("--train", 800, "--test", 800), "asked; mnist-5k-train has 800"),
        (("--learner", "oracle"), "no method 'oracle'"),
        (("--engine", "steam"), "steam"),
        (("--learner", "nearest-neighbours", "--binarise", 0), "256 values"),
    ],
)
def test_mistakes_are_one_line(options: tuple[object, ...], message: str, call: Call, tmp_path: Path) -> None:
    asked = {"--classes": "1,7", "--train": 60, "--test": 100, "--learner": "nearest-centroid"}
    asked |= dict(zip(options[::2], options[1::2], strict=True))  # type: ignore[arg-type]
    answer = call("certify", "mnist-5k", *(part for pair in asked.items() for part in pair), "-o", tmp_path / "out")
    assert answer.code == 2 and message in answer.err and len(answer.err.strip().splitlines()) == 1, answer.err
    assert list(tmp_path.iterdir()) == []


def test_the_figure_is_made_from_finished_runs(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = (
        paper.Curve("nearest centroid", "nearest-centroid", 200, draws=2),
        paper.Curve("nearest neighbours", "nearest-neighbours", draws=2),
    )
    small = paper.Profile("mnist-5k", 50, curves)
    monkeypatch.setattr(paper, "profile", lambda *_: small)
    out = tmp_path / "runs"
    answer = call("reproduce", "smoothing-mnist17", "--profile", "mnist-5k", "-o", out, "--json")
    assert answer.code == 0
    text = answer.json["text"]
    assert "*36*" in text and "| nearest neighbours | – |" in text
    made = {p.name for p in (out / "results").iterdir()}
    assert made == {"README.md", "curves.parquet", "figure.png"}
    monkeypatch.setattr(paper, "certify_to_folder", lambda *_, **__: pytest.fail("finished runs are read"))
    assert call("reproduce", "smoothing-mnist17", "--profile", "mnist-5k", "-o", out).code == 0
