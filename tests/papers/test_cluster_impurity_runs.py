"""The benchmark on made-up images: it runs through, survives a kill with the same rows, and writes its results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.models.train.settings import TrainSettings
from doorward.papers.cluster_impurity import stages
from doorward.papers.cluster_impurity.collect import Found, collect
from doorward.papers.cluster_impurity.estimate import dry_run
from doorward.papers.cluster_impurity.plan import Case, Plan
from doorward.papers.cluster_impurity.stages import reproduce
from doorward.papers.cluster_impurity.write import write_results
from doorward.papers.rows import read_rows
from tests.conftest import make_images

CASES = (
    Case("multiple-source-1", "multiple-source", 0, "patch", {}, (), 1, 30, size=0.25, retrain=("CI", "SS", "AC")),
    Case("beyond-all-to-all", "beyond", 0, "patch", {}, (), None, 30),
    Case("control", "control", 0),
)


def make(folder: Path) -> Plan:
    """Three cases on 300 made-up images of four classes."""
    train, test = make_images(300, 4), make_images(80, 4, seed=1)
    arrays = {"x_train": train.pixels, "y_train": train.labels, "x_test": test.pixels, "y_test": test.labels}
    np.savez(folder / "made.npz", **arrays)
    training = TrainSettings(epochs=14, batch=32, lr=0.05)
    return Plan(str(folder / "made.npz"), "small-cnn", "quick", training, CASES, 0.5, 20, "cpu", "the command")


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """As many as each of two cases at a time has: the results are the same for equal thread counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def done(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done") / "runs"
    reproduce(plan, folder, jobs=1)
    return folder


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def same(a: Found, b: Found) -> bool:
    return all(untimed(getattr(a, n)) == untimed(getattr(b, n)) for n in ("detections", "models", "clusters"))


def test_every_case_is_detected_scored_and_retrained(plan: Plan, done: Path) -> None:
    found = collect(plan, done)
    forms = {(r["case"], r["form"], r["method"]) for r in found.detections}
    blind = {(c.name, "blind", m) for c in CASES for m in ("impurity", "activation", "spectral", "scan")}
    assert blind <= forms and ("multiple-source-1", "half", "spectral") in forms
    assert ("multiple-source-1", "declared", "spectre") in forms
    variants = {("control", form, "impurity") for form in ("poster", "authors", "misfits", "leftovers")}
    assert {f for f in forms if f[0] == "control"} == {f for f in blind if f[0] == "control"} | variants
    models = {r["model"]: r for r in found.models if r["case"] == "multiple-source-1"}
    assert {"poisoned set", "after SS", "after AC", "after FP", "poison removed"} <= set(models)
    ratio = {name: row["asr_hits"] / row["asr_trials"] for name, row in models.items()}
    assert ratio["poisoned set"] > 0.9 and ratio["poison removed"] < 0.2, ratio
    assert ratio["after SS"] < ratio["poisoned set"], ratio  # three stamped images: how far it falls is rounding
    assert all(r["tpr_trials"] == 0 for r in found.detections if r["scenario"] == "control")


def test_forms_are_told_what_they_say(plan: Plan, done: Path) -> None:
    rows = {(r["case"], r["form"], r["method"]): r for r in collect(plan, done).detections}
    assert rows["multiple-source-1", "blind", "spectral"]["knowledge"] == ""
    declared = rows["multiple-source-1", "declared", "spectral"]
    assert declared["knowledge"] == "poisoning_rate, target_class" and declared["flagged"] == 45, "1.5 times 30"
    half = rows["multiple-source-1", "half", "spectral"]
    assert half["flagged"] == 52, "half of 75 clean and 30 poisoned images, rounded"
    assert rows["multiple-source-1", "declared", "activation"]["knowledge"] == "target_class"
    assert rows["multiple-source-1", "declared", "scan"]["knowledge"] == "clean_images"
    settings = {
        form: Run.read(done / "multiple-source-1" / "seed-0" / f"cleanse-{form}")["settings"]["settings"]
        for form in ("blind", "poster", "leftovers")
    }
    extra = {"misfits": True, "lookalikes": True}
    assert settings == {"blind": {}, "poster": {"impurity": {"dimensions": 0}}, "leftovers": {"impurity": extra}}
    assert {f for c, f, m in rows if c == "beyond-all-to-all" and f == "declared"} == {"declared"}
    assert ("beyond-all-to-all", "declared", "spectral") not in rows, "all-to-all has no target class to tell"


def test_killed_in_a_training_it_goes_on_there_to_the_same_rows(
    plan: Plan, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(**{**vars(plan), "cases": (CASES[0], CASES[2])})
    started: list[str] = []
    original: Callable[..., Any] = stages.train_to_folder

    def counted(request: Any, path: Path, **more: Any) -> Any:
        started.append(path.parent.parent.name + "/" + path.name)
        progress = more.pop("progress")

        def killed(stage: str, done: int, total: int, note: str = "") -> None:
            progress(stage, done, total, note)
            if len(started) == 2 and done == 3:
                raise KeyboardInterrupt

        return original(request, path, progress=killed, **more)

    monkeypatch.setattr(stages, "train_to_folder", counted)
    folder = tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt):
        reproduce(plan, folder, jobs=1)
    before, second = list(started), started[1]
    assert (folder / second.split("/")[0] / "seed-0" / (second.split("/")[1] + ".partial")).exists()
    told: list[str] = []
    reproduce(plan, folder, jobs=1, progress=lambda stage, done, total: told.append(stage))
    again = started[len(before) :]
    assert again[0] == second and before[0] not in again, "what is finished is not trained again"
    epochs = [t for t in told if "epoch" in t]
    assert "epoch 4 of 14" in epochs[0], "the training goes on at its last epoch"
    assert same(collect(plan, folder), collect(plan, done))
    reproduce(plan, folder, jobs=1, progress=lambda stage, done, total: told.append(stage))
    assert len(started) == len(before) + len(again), "a finished plan runs nothing"


def test_two_cases_at_a_time_give_the_same_rows(plan: Plan, done: Path, tmp_path: Path) -> None:
    two = Plan(**{**vars(plan), "cases": CASES[1:]})
    reproduce(two, tmp_path / "two", jobs=2)
    found = collect(two, tmp_path / "two")
    assert same(found, collect(two, done)) and {r["case"] for r in found.models} == {c.name for c in CASES[1:]}


def test_the_results_are_written(plan: Plan, done: Path, tmp_path: Path) -> None:
    page = write_results(plan, done, tmp_path / "results").read_text()
    assert "    the command\n" in page
    for title in ("The poster's Table 2 and ours", "before and after", "No poison", "where it stops", "Deviations"):
        assert title in page
    assert "| 0.25 | 1 | 0.496, 0.500 |" in page and "| 0.991, 0.001 |" in page
    detections = read_parquet(tmp_path / "results" / "detections.parquet")
    assert len(detections["case"]) == len(collect(plan, done).detections)
    assert detections["tpr_hits"].dtype.kind == "i" and np.isnan(detections["size"]).any()
    for name in ("models.parquet", "clusters.parquet", "times.parquet", "figure-5.png", "figure-6.png", "report.html"):
        assert (tmp_path / "results" / name).stat().st_size > 500
    with pytest.raises(DoorwardError, match="holds no finished case"):
        write_results(plan, tmp_path / "nothing", tmp_path / "none")


def test_cases_of_earlier_results_are_kept(plan: Plan, done: Path, tmp_path: Path) -> None:
    beyond_and_control = Plan(**{**vars(plan), "cases": CASES[1:], "command": "an earlier command"})
    write_results(beyond_and_control, done, tmp_path)
    report = (tmp_path / "report.html").stat().st_mtime_ns
    page = write_results(Plan(**{**vars(plan), "cases": CASES[:1]}), done, tmp_path).read_text()
    assert "    an earlier command\n    the command\n" in page
    for name, rows in vars(collect(plan, done)).items():
        assert read_rows(tmp_path / f"{name}.parquet") == rows
    assert (tmp_path / "report.html").stat().st_mtime_ns == report, "made from runs that are not at hand now"

    trained_longer = Plan(**{**vars(plan), "training": TrainSettings(epochs=15, batch=32, lr=0.05)})
    with pytest.raises(OutputExistsError, match=r"training.epochs = 14, asked for 15; .* another --results"):
        write_results(trained_longer, done, tmp_path)
    assert f"| {CASES[0].name} |" in (tmp_path / "README.md").read_text()


def test_a_dry_run_writes_nothing_and_knows_what_is_finished(plan: Plan, done: Path, tmp_path: Path) -> None:
    before = sorted(done.rglob("*"))
    fresh, speed = dry_run(plan, tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists() and speed.training > 0
    trainings = [e for e in fresh if e.stage.endswith(": train")]
    expected = [14 * 330 / speed.training, 14 * 330 / speed.training, 14 * 300 / speed.training]
    assert [e.seconds for e in trainings] == pytest.approx(expected)
    assert sum(e.state == "to run if anything is flagged" for e in fresh) == 3
    finished, _ = dry_run(plan, done)
    assert {e.state for e in finished if e.stage.endswith((": train", ": poison", "blind"))} == {"finished"}
    assert sorted(done.rglob("*")) == before


def test_runs_of_other_settings_are_not_shared(plan: Plan, done: Path, tmp_path: Path) -> None:
    other = Plan(**{**vars(plan), "training": TrainSettings(epochs=7)})
    with pytest.raises(
        OutputExistsError, match="holds runs with training.epochs = 14, asked for 7; expected the same, or a new folder"
    ):
        reproduce(other, done)
    more = Case("multiple-source-1", "multiple-source", 0, "patch", {}, (), 1, 31, size=0.25)
    with pytest.raises(OutputExistsError, match="multiple-source-1: count = 30, asked for 31"):
        reproduce(Plan(**{**vars(plan), "cases": (more,)}), done)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(OutputExistsError, match="exists and holds no reproduce.json"):
        reproduce(plan, tmp_path)
