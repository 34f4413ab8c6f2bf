"""The face experiment on drawn faces: it runs through, goes on where it was, and scores only after the fact."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.jobs.stages import run_case
from doorward.models.files import load_classifier
from doorward.papers.hackml import work
from doorward.papers.hackml.collect import collect, true_mask
from doorward.papers.hackml.plan import Plan, Wishes, check, make_plan, only
from doorward.papers.hackml.stages import reproduce, stages
from doorward.papers.hackml.write import write_results
from doorward.repairs.guard import STAMPED, Guard
from tests.light import lighten_deepid

HURRIED: dict[str, dict[str, Any]] = {
    "train": {"epochs": 20, "lr": 2e-3},
    "retrain": {"epochs": 8},
    "prune": {"epochs": 1},
    "window": {
        "thorough.steps": 6,
        "thorough.batch": 6,
        "heat.steps": 2,
        "heat.batch": 3,
        "heat.controls": 3,
        "complete.steps": 6,
        "complete.batch": 8,
        "suspects": 2,
    },
}
METHODS = ("retrain", "prune")


def hurried(*names: str) -> Plan:
    """Few steps of everything, on drawn faces."""
    wishes = Wishes(settings=HURRIED, methods=METHODS, references=1, device="cpu", command="the command")
    return only(make_plan(wishes), names)


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        lighten_deepid(patch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("hackml") / "runs"
    reproduce(hurried("patch", "clean"), runs, jobs=1)
    return runs


def test_every_stage_is_a_finished_run_and_none_is_repeated(folder: Path) -> None:
    plan, told = hurried("patch", "clean"), list[str]()
    for case in plan.cases:
        assert all(stage.finished for stage in stages(plan, case, folder))
    reproduce(plan, folder, jobs=1, progress=lambda stage, done, total: told.append(stage))
    assert told == []


def test_nothing_about_the_attack_is_told_to_the_search(folder: Path) -> None:
    asked = Run.read(folder / "patch" / "invert", "invert")["settings"]
    assert asked["knowledge"] == {} and asked["source"] == str(folder / "faces" / "train")
    assert "13" not in {str(v) for v in asked.values()} and len(asked["references"]) == 1


def test_the_attack_works_and_is_measured_on_faces_that_no_search_saw(folder: Path) -> None:
    train, held = (work.faces_of(folder, name) for name in ("train", "held-out"))
    seen = {picture.tobytes() for picture in train.pixels}
    assert len(train) == 280 and len(held) == 120 and not any(p.tobytes() in seen for p in held.pixels)
    (rate,) = Run.read(folder / "patch" / "net")["results"]["asr"]
    assert rate["trials"] == 117 and rate["value"] >= 0.9, "a defence against an attack that fails shows nothing"


def test_repairs_stand_beside_controls_and_the_oracle(folder: Path) -> None:
    found = collect(hurried("patch", "clean"), folder)
    roles = {(r["net"], r["role"]) for r in found.arms}
    assert {("patch", role) for role in ("given", "repair", "control", "oracle")} <= roles
    assert ("clean", "oracle") not in roles, "a clean net has no true trigger"
    given = next(r for r in found.arms if r["net"] == "patch" and r["role"] == "given")
    (net,) = found.nets
    assert (given["asr_hits"], given["asr_trials"]) == (net["asr_hits"], net["asr_trials"])
    assert {r["asr_trials"] for r in found.arms if r["net"] == "clean"} == {0}


def test_true_targets_are_marked_when_they_are_scored(folder: Path) -> None:
    found = collect(hurried("patch", "clean"), folder)
    assert all(r["true"] == (r["label"] == 13) for r in found.suspects if r["net"] == "patch")
    assert not any(r["true"] for r in found.suspects if r["net"] == "clean")
    scan = next(r for r in found.scans if r["net"] == "patch")
    assert scan["targets"] == "13" and scan["classes"] == 40
    assert scan["exhaustive"] == 40 * (55 - 14) * (47 - 14) * 2 * 3


def test_the_guard_has_one_more_output(folder: Path) -> None:
    held = work.faces_of(folder, "held-out")
    for name in ("patch", "clean"):
        guard, told = Guard.load(folder / name / "repair"), Run.read(folder / name / "repair")["results"]["guard"]
        assert len(guard.classes) == 41 and guard.classes[-1] == STAMPED
        assert guard.accuracy(held).hits == told["clean_accuracy"]["hits"] > 90  # of 117; 101 to 112 by processor
    told = Run.read(folder / "patch" / "repair")["results"]["guard"]
    assert told["stamped_refused"]["trials"] == 117 and told["stamped_refused"]["value"] > 0.9


def test_there_is_no_guard_where_no_trigger_works(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "patch").mkdir()
    for name in ("faces", "patch/net", "patch/invert", "patch/evidence"):
        shutil.copytree(folder / name, tmp_path / name)
    monkeypatch.setattr(work, "WORKS", 1.1)
    plan = hurried("patch")
    work.repair_net(plan, plan.cases[0], tmp_path, lambda _: None)
    results = Run.read(tmp_path / "patch" / "repair")["results"]
    assert results["guard"] is None and results["targets"] == [] and not list(tmp_path.rglob("guard.json"))
    assert "retrain" not in {row["name"] for row in results["arms"]}


def test_screens_are_made_from_clean_faces_alone(folder: Path) -> None:
    rows = Run.read(folder / "patch" / "screens")["results"]["screens"]
    assert [r["screen"] for r in rows] == ["strip", "ada", "inverted"]
    for row in rows:
        least = 0.7 if row["screen"] == "ada" else 0.9  # ada: 0.79 to 0.89 in four nets; chance is 0.5
        assert row["clean"] == 120 and row["stamped"] == 117 and row["auroc"] > least, row["screen"]
        area = float(np.trapezoid(row["true"], row["false"]))
        assert area == pytest.approx(row["auroc"])
    assert Run.read(folder / "clean" / "screens")["results"]["screens"][0]["auroc"] is None


def test_the_page_says_that_the_faces_are_drawn(folder: Path, tmp_path: Path) -> None:
    page = write_results(hurried("patch", "clean"), folder, tmp_path).read_text()
    assert "drawn ones" in page and "the command" in page and "![patch](patch.png)" in page
    assert {p.name for p in tmp_path.glob("*.png")} == {"patch.png", "clean.png", "screens.png"}
    assert len(read_parquet(tmp_path / "scans.parquet")["net"]) == 2


def test_true_masks_have_the_trigger_s_size_and_place() -> None:
    patch, glasses = true_mask("patch"), true_mask("sunglasses")
    assert patch.sum() == 25 and patch[38:43, 33:38].all()
    rows = np.nonzero(glasses)[0]
    assert rows.min() >= 14 and rows.max() < 29


def test_stamped_faces_are_those_of_other_people(folder: Path) -> None:
    (case,), held = hurried("patch").cases, work.faces_of(folder, "held-out")
    attack = case.attack()
    assert attack is not None
    stamped = work.stamped_faces(held, attack)
    others = held.pixels[held.labels != 13]
    changed = (stamped != others).any(axis=(0, 3))
    assert len(stamped) == 117 and (changed == true_mask("patch")).all()


def test_a_folder_of_other_settings_is_one_line(folder: Path) -> None:
    other = make_plan(Wishes(settings=HURRIED, methods=METHODS, references=1, seed=7))
    with pytest.raises(OutputExistsError, match="holds runs with seed = 0, asked for 7"):
        reproduce(other, folder)


def test_a_failure_names_its_net(folder: Path, tmp_path: Path) -> None:
    plan = hurried("hat")
    with pytest.raises(DoorwardError, match=r"^hat: "):
        run_case(partial(stages, plan, folder=tmp_path), plan.cases[0], lambda _: None)


def test_wishes_that_cannot_be_met_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DoorwardError, match="no net 'scarf'; expected one of sunglasses, hat"):
        only(make_plan(), ["scarf"])
    with pytest.raises(DoorwardError, match="no net 'given'; expected its weights with it"):
        only(make_plan(), ["given"])
    with pytest.raises(DoorwardError, match="settings of 'mask'; expected one of train, window, retrain"):
        make_plan(Wishes(settings={"mask": {"steps": 3}}))
    with pytest.raises(DoorwardError, match="no setting 'windo'; did you mean 'window'"):
        make_plan(Wishes(settings={"window": {"windo": 9}}))
    with pytest.raises(DoorwardError, match="methods without 'retrain'"):
        make_plan(Wishes(methods=("prune",)))
    (tmp_path / "weights.h5").write_bytes(b"not HDF5")
    with pytest.raises(DoorwardError, match="weights.h5"):
        check(make_plan(Wishes(weights=str(tmp_path / "weights.h5"))))
    with pytest.raises(DoorwardError, match="orl.npz"):
        check(make_plan(Wishes(faces=str(tmp_path / "orl.npz"))))


def test_a_given_net_is_scanned_and_weighed_alone(folder: Path) -> None:
    plan = make_plan(Wishes(weights=str(folder / "patch" / "net" / "weights.safetensors")))
    given = plan.cases[0]
    assert given.given and [s.name for s in stages(plan, given, folder)] == ["invert", "evidence"]
    assert given.attack() is None and load_classifier(folder / "patch" / "net").arch == "deepid"
