"""The experiment on small digits: it runs through, survives kills with the same rows, and writes its results."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.files import write_json
from doorward.core.images import ImageSet
from doorward.core.opening import read_json
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.files import load_stamps
from doorward.jobs import stages
from doorward.jobs.stages import run_case
from doorward.models.train.settings import TrainSettings
from doorward.papers.mesa import work
from doorward.papers.mesa.arms import arms, stamps
from doorward.papers.mesa.collect import collect
from doorward.papers.mesa.estimate import dry_run
from doorward.papers.mesa.patterns import black_white
from doorward.papers.mesa.plan import Case, Plan, only
from doorward.papers.mesa.stages import reproduce
from doorward.papers.mesa.stages import stages as stages_of
from doorward.papers.mesa.write import write_results
from doorward.papers.rows import read_rows
from tests.light import repair_briefly

CASES = (
    Case(kind="black-white", number=49, beyond=True, shown=True),
    Case(kind="colour", number=0),
    Case(kind="black-white", number=49, place="fixed", beyond=True),
)


def make(folder: Path, digits: tuple[ImageSet, ImageSet]) -> Plan:
    """Three cases on digits at half their size: seconds in place of hours."""
    rng = np.random.default_rng(0)
    train, test = (part.subset(rng.permutation(len(part))[:n]) for part, n in zip(digits, (1200, 400), strict=True))
    arrays = {"x_train": train.pixels[:, ::2, ::2], "y_train": train.labels}
    np.savez(folder / "small.npz", **arrays, x_test=test.pixels[:, ::2, ::2], y_test=test.labels)
    fast = TrainSettings(epochs=3, batch=32, lr=0.1, weight_decay=0)
    settings: dict[str, Any] = {
        "mesa": {"steps": 25, "batch": 32, "width": 16, "lr": 5e-3, "weights": "equal"},
        "pixel": {"steps": 25, "batch": 32, "runs": 2},
        "mask": {"steps": 25, "batch": 16},
        "repair": {"epochs": 3, "batch": 32, "lr": 0.005, "share": 0.3, "held_out": 0},
    }
    return Plan(
        profile="quick", source=str(folder / "small.npz"), net="small-cnn", clean=fast, attack=fast, probability=0.25,
        rounds=2, target=0, evaluated=0.4, seed=0, cases=CASES, device="cpu", command="the command", **settings,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        repair_briefly(patch, work)
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, digits: tuple[ImageSet, ImageSet]) -> Plan:
    return make(tmp_path_factory.mktemp("source"), digits)


@pytest.fixture(scope="module")
def done(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "SAMPLES", 15)
        reproduce(plan, folder, jobs=1)
    return folder


def value(rows: list[dict[str, Any]], case: str, arm: str, name: str = "asr") -> float:
    (row,) = [r for r in rows if (r["case"], r["arm"], r["rank"]) == (case, arm, 0)]
    return float(row[f"{name}_hits"] / row[f"{name}_trials"])


def test_every_arm_is_measured_on_images_that_no_defence_saw(plan: Plan, done: Path) -> None:
    found = collect(plan, done)
    asr = partial(value, found.models, "bw-49")
    assert asr("clean") < 0.1 and asr("before") > 0.9, (asr("clean"), asr("before"))
    assert asr("oracle") < 0.2 < 0.5 < asr("fine-tune"), (asr("oracle"), asr("fine-tune"))
    assert asr("mesa-ensemble") < asr("fine-tune") and asr("refresh") > 0.5
    assert max(asr("mesa-default"), asr("unlearn")) < asr("fine-tune")
    search, evaluation = (ImageSet.load(done / "data" / name) for name in ("search", "evaluation"))
    seen = {image.tobytes() for image in search.pixels}
    assert not any(image.tobytes() in seen for image in evaluation.pixels)
    trials = {r["asr_trials"] for r in found.models}
    assert trials == {int((evaluation.labels != plan.target).sum())}
    assert {r["accuracy_trials"] for r in found.models} == {len(evaluation)}
    pixel = [r["rank"] for r in found.models if (r["case"], r["arm"]) == ("bw-49", "pixel")]
    assert pixel == [0, 1] and {r["arm"] for r in found.models if r["case"] == "colour-00"} == {
        "clean", "before", "oracle", "mesa-beta-0.5", "mesa-beta-0.8", "mesa-beta-0.9", "mesa-ensemble", "pixel",
        "pixel-short", "fine-tune", "refresh", "mesa-default", "pixel-default", "unlearn",
        "ibau", "prune",
    }  # fmt: skip


def test_the_defence_is_told_what_its_rows_say(plan: Plan, done: Path) -> None:
    def knowledge(name: str) -> tuple[Any, int]:
        (method,) = Run.read(done / "bw-49" / f"invert-{name}", "invert")["results"]["methods"].values()
        return method["knowledge"], method["settings"].get("size", 0)

    assert knowledge("mesa") == (["target_class"], 3) and knowledge("mesa-5") == (["target_class"], 5)
    assert knowledge("mask") == ([], 0), "all classes, no size"
    search = ImageSet.load(done / "data" / "search")
    inverted = Run.read(done / "bw-49" / "invert-mesa")["results"]["images"]
    assert inverted["sha256"] == search.hash, "never the images of the evaluation"


def test_without_crutches_nothing_is_repaired_when_the_verdict_names_nothing(plan: Plan, done: Path) -> None:
    found = collect(plan, done)
    verdicts = {r["case"]: r for r in found.verdicts}
    assert {case: row["named"] for case, row in verdicts.items()} == {"bw-49": -1, "bw-49-fixed": -1}
    for case in verdicts:
        assert Run.read(done / case / "after-mesa-unknown")["results"]["repaired"] is False
        assert value(found.models, case, "mesa-unknown") == value(found.models, case, "before")


def test_without_crutches_the_class_that_the_verdict_names_is_used(plan: Plan, done: Path, tmp_path: Path) -> None:
    here, every = tmp_path / "bw-49", {arm.name: arm for arm in arms(plan, CASES[0])}
    shutil.copytree(done / "bw-49", here)

    def name(label: int) -> None:
        manifest = read_json(here / "invert-mask" / "run.json")
        manifest["results"]["targets"] = [{"class_name": str(label), "label": label, "p_value": 0.01, "method": "mask"}]
        write_json(here / "invert-mask" / "run.json", manifest)

    assert stamps(plan, every["mesa-unknown"], here) == {}
    name(plan.target)
    ((label, (mine,)),) = stamps(plan, every["mesa-unknown"], here).items()
    ((_, (told,)),) = stamps(plan, every["mesa-ensemble"], here).items()
    assert label == plan.target and isinstance(mine, TriggerDistribution) and isinstance(told, TriggerDistribution)
    assert all(torch.equal(mine.net[k], told.net[k]) for k in told.net), "the triggers searched for the target already"
    name(plan.target + 3)
    with pytest.raises(DoorwardError, match="holds no trigger for after-mesa-unknown"):
        stamps(plan, every["mesa-unknown"], here)


def test_killed_in_the_attack_and_between_repairs_it_ends_with_the_same_rows(
    plan: Plan, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = only(plan, ["colour-00"])
    original: Callable[..., Any] = work.train

    def killed(*given: Any, progress: Progress, **more: Any) -> Any:
        def told(stage: str, done: int, total: int, note: str = "") -> None:
            progress(stage, done, total, note)
            if done == 2:
                raise KeyboardInterrupt

        return original(*given, progress=told, **more)

    folder, told = tmp_path / "runs", list[str]()
    for name in ("data", "clean"):  # what all cases share
        shutil.copytree(done / name, folder / name)
    shutil.copy(done / "reproduce.json", folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(work, "train", killed)
        reproduce(one, folder, jobs=1)
    assert (folder / "colour-00" / "attack.partial").exists() and not (folder / "colour-00" / "attack").exists()
    repairs = iter([work.retrain] * 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(work, "retrain", lambda *a, **k: next(repairs, _interrupt)(*a, **k))
        reproduce(one, folder, jobs=1, progress=lambda stage, done, total: told.append(stage))
    assert "colour-00: attack, round 1, small-cnn, epoch 3 of 3" in next(t for t in told if "round" in t), (
        "at its last epoch"
    )
    reproduce(one, folder, jobs=1, progress=lambda stage, done, total: told.append(stage))
    assert told.count("colour-00: attack") == 1 and sum("after-oracle" in t for t in told) == 1
    again, whole = (collect(one, where).models for where in (folder, done))
    assert again == whole and len(whole) == 18
    monkeypatch.setattr(stages, "run_once", lambda asked, _: all(s.finished for s in asked) or pytest.fail("ran again"))
    reproduce(one, folder, jobs=1)


def _interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_the_results_are_written(plan: Plan, done: Path, tmp_path: Path) -> None:
    page = write_results(plan, done, tmp_path / "results").read_text()
    assert "    the command\n" in page
    for title in ("Black-and-white triggers", "Random-colour", "Without the crutches", "Unknown target", "Deviations"):
        assert f"## {title}" in page
    assert "51.4" not in page, "the authors' figures are of other images"
    assert "Set by the user: mesa.steps = 25." in page
    models = read_parquet(tmp_path / "results" / "models.parquet")
    assert len(models["case"]) == len(collect(plan, done).models) and models["asr_hits"].dtype.kind == "i"
    shown = read_parquet(tmp_path / "results" / "inversions.parquet")
    assert np.isnan(shown["entropy"]).any() and not np.isnan(shown["success"]).any()
    for name in ("verdicts.parquet", "times.parquet", "asr-per-trigger.png", "distribution.png", "triggers.png"):
        assert (tmp_path / "results" / name).stat().st_size > 500
    with pytest.raises(DoorwardError, match="holds no finished attack"):
        write_results(plan, tmp_path / "nothing", tmp_path / "none")


def test_triggers_of_earlier_results_are_kept(plan: Plan, done: Path, tmp_path: Path) -> None:
    write_results(only(plan, ["bw-49", "bw-49-fixed"]), done, tmp_path)
    page = write_results(only(plan, ["colour-00"]), done, tmp_path).read_text()
    whole = collect(plan, done)
    for name, rows in vars(whole).items():
        kept = read_rows(tmp_path / f"{name}.parquet")
        assert len(kept) == len(rows) and all(row in kept for row in rows), name
    assert "Black-and-white triggers" in page and "Random-colour" in page and "![distribution]" in page
    slower = plan.model_copy(update={"rounds": 3})
    with pytest.raises(OutputExistsError, match="results made with rounds = 2, asked for 3"):
        write_results(slower, done, tmp_path)


def test_every_arm_retrains_with_its_own_triggers(plan: Plan, done: Path) -> None:
    used: dict[str, Any] = {}
    for arm in arms(plan, CASES[0]):
        if arm.method in ("retrain", "unlearn"):
            used[arm.folder] = stamps(plan, arm, done / "bw-49").get(0, [None])
    assert all(len(found) == 1 for found in used.values())
    levels = [used[f"after-mesa-{name}"][0].levels for name in ("beta-0.5", "beta-0.9", "ensemble")]
    assert levels == [(0.5,), (0.9,), (0.5, 0.8, 0.9)]
    assert used["after-mesa-5"][0].shape == (1, 5, 5) and used["after-pixel-alpha-7-0"][0].size == (7, 7)
    assert used["after-pixel-alpha-7-0"][0].alpha.min() < 1, "transparency was searched"
    assert torch.equal(used["after-oracle"][0].pattern, black_white(49, 1))
    assert not torch.equal(used["after-pixel-0"][0].pattern, used["after-pixel-1"][0].pattern)
    assert torch.equal(used["after-unlearn-0"][0].pattern, used["after-pixel-0"][0].pattern)


def test_one_generator_of_a_distribution_alone(done: Path) -> None:
    (whole,) = load_stamps(done / "bw-49" / "invert-mesa", "mesa", 0)
    assert isinstance(whole, TriggerDistribution)
    still = replace(whole, noise=0.0)  # what is drawn after the generators' noise differs
    drawn = [still.sample(20, torch.Generator().manual_seed(1), level=level) for level in range(3)]
    for level, expected in enumerate(drawn):
        alone = still.only(level)
        torch.testing.assert_close(alone.sample(20, torch.Generator().manual_seed(1)), expected, rtol=0, atol=1e-5)
        assert (alone.levels, alone.weights) == ((whole.levels[level],), (1.0,))
        assert (alone.success, alone.entropies) == ((whole.success[level],), (whole.entropies[level],))
    assert not torch.equal(drawn[0], drawn[1])
    for level in (-1, 3):
        with pytest.raises(DoorwardError, match=f"level {level}; expected one of 0..2"):
            whole.only(level)


def test_a_dry_run_writes_nothing_and_knows_what_is_finished(plan: Plan, done: Path, tmp_path: Path) -> None:
    before = sorted(done.rglob("*"))
    fresh, seconds = dry_run(plan, tmp_path / "fresh", jobs=2)
    assert not (tmp_path / "fresh").exists() and seconds > 0
    own = [e for e in fresh if not e.shared]
    assert seconds == pytest.approx(sum(e.seconds for e in fresh if e.shared) + sum(e.seconds for e in own) / 2)
    (clean,) = [e for e in fresh if e.stage == "clean net"]
    attack = next(e for e in fresh if e.stage == "bw-49: attack")
    assert clean.shared and 0.9 < attack.seconds / clean.seconds < 1.5, "as many epochs, and looks at the success"
    assert len(own) == sum(len(list(stages_of(plan, c, tmp_path))) for c in plan.cases)
    assert {e.state for e in fresh} == {"to run", "to run if another class is named"}
    finished, _ = dry_run(plan, done, jobs=1)
    assert {e.state for e in finished if "unknown" not in e.stage} == {"finished"}
    assert sorted(done.rglob("*")) == before


def test_what_fails_in_a_process_is_one_line(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory.\nMore lines")

    of_case = partial(stages_of, plan, folder=tmp_path)
    pickle.dumps((partial(run_case, of_case), plan.cases[0]))  # what goes to the processes
    monkeypatch.setattr(work, "attack_net", fail)
    with pytest.raises(DoorwardError) as told:
        run_case(of_case, plan.cases[0], lambda _: None)
    assert str(told.value) == "bw-49: CUDA out of memory.; the same command goes on from what is finished"


def test_runs_of_other_settings_are_not_shared(plan: Plan, done: Path, tmp_path: Path) -> None:
    other = plan.model_copy(update={"repair": plan.repair.model_copy(update={"epochs": 4})})
    with pytest.raises(OutputExistsError, match="holds runs with repair.epochs = 3, asked for 4; expected the same"):
        reproduce(other, done)
    with pytest.raises(OutputExistsError, match="seed = 0, asked for 1"):
        reproduce(plan.model_copy(update={"seed": 1}), done)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(OutputExistsError, match="exists and holds no reproduce.json"):
        reproduce(plan, tmp_path)
