"""The benchmark's plan: what each profile runs, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.models.train.settings import TrainSettings
from doorward.papers.accessory import draw_sunglasses
from doorward.papers.cluster_impurity.plan import Case, Plan, Wishes, check, make_plan, only
from doorward.papers.cluster_impurity.trainers import FAITHFUL, FAST, SIZES, TABLE_2

QUICK = TrainSettings(epochs=1)


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits in place of CIFAR-10, which may not have been fetched: ten classes either way."""
    from doorward.data.sources import load_images
    from doorward.papers.cluster_impurity import plan

    monkeypatch.setattr(plan, "load_images", lambda source, **more: load_images("mnist-5k", **more))


def names(plan: Plan) -> dict[str, int]:
    """Cases and how many seeds each has."""
    found: dict[str, int] = {}
    for case in plan.cases:
        found[case.name] = found.get(case.name, 0) + 1
    return found


def test_the_posters_table_is_as_printed() -> None:
    assert tuple(TABLE_2) == SIZES
    worst = min(row["CI"][0] for row in TABLE_2.values()), max(row["CI"][1] for row in TABLE_2.values())
    assert worst == (0.976, 0.005) and all(row["SS"][1] == 0.5 for row in TABLE_2.values())
    assert sum(row["AC"][0] for row in TABLE_2.values()) == pytest.approx(4.154)


def test_the_trainers_are_what_they_are_called() -> None:
    assert (FAITHFUL.epochs, FAITHFUL.batch, FAITHFUL.flip, FAITHFUL.shift) == (200, 32, True, 3)
    assert [FAITHFUL.rate(e, 200) for e in (0, 80, 120, 160, 180)] == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6, 5e-7])
    assert FAITHFUL.optimiser == "adam-l2" and FAITHFUL.weight_decay == 2 * 1e-4, "l2(1e-4) of Keras"
    assert (FAST.schedule, FAST.batch, FAST.plain_epochs) == ("one-cycle", 128, 5), "the pixel is learned at the end"


def test_the_cpu_profile_is_the_one_of_the_benchmark(cifar: None) -> None:
    plan = make_plan("cpu")
    assert names(plan) == {
        "multiple-source-0.15": 1,
        "multiple-source-0.25": 3,
        "multiple-source-0.4": 1,
        "single-source-0.25": 3,
        "control": 3,
    }
    retrained = {(c.name, c.seed): c.retrain for c in plan.cases if c.retrain}
    assert retrained == {("multiple-source-0.25", s): ("CI",) if s else ("CI", "SS", "AC") for s in range(3)}
    single = next(c for c in plan.cases if c.scenario == "single-source")
    assert (single.sources, single.target, single.count) == ((0,), 7, 1000)
    assert plan.training == FAST and plan.net == "resnet20"


def test_the_gpu_profile_is_the_whole_poster_and_more(cifar: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DoorwardError, match="profile 'gpu' on a machine without CUDA GPU; expected one, or profile"):
        make_plan("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = names(make_plan("gpu"))
    assert sum(n.startswith(("multiple", "single")) for n in found) == 12 and set(found.values()) == {3}
    assert {n for n in found if n.startswith("beyond")} == {
        "beyond-pixel", "beyond-patch", "beyond-blend", "beyond-sinusoid", "beyond-warp", "beyond-accessory",
        "beyond-all-to-all",
    }  # fmt: skip
    assert sum(len(c.retrain) == 3 for c in make_plan("gpu").cases) == 36


def test_wishes_change_the_profile(cifar: None) -> None:
    plan = make_plan("cpu", Wishes(sizes=(0.3,), seeds=2, seed=5, beyond=True, multiple_count=90, trainer="faithful"))
    found = names(plan)
    assert found.pop("control") == 2 and {n for n in found if "source" in n} == {
        "multiple-source-0.3",
        "single-source-0.3",
    }
    assert set(found.values()) == {2} and len(found) == 9
    assert {c.seed for c in plan.cases} == {5, 6} and plan.training == FAITHFUL
    assert {c.count for c in plan.cases if c.scenario == "multiple-source"} == {90}
    assert not any(c.retrain for c in plan.cases), "the profile retrains at .25"
    again = make_plan("cpu", Wishes(sizes=(0.25, 0.3), retrain=True))
    assert {c.name for c in again.cases if c.retrain} == {"multiple-source-0.25", "multiple-source-0.3"}
    assert names(again)["multiple-source-0.3"] == 1 and names(again)["multiple-source-0.25"] == 3
    assert not any(c.retrain for c in make_plan("cpu", Wishes(retrain=False)).cases)
    assert make_plan("cpu", Wishes(training={"epochs": 3})).training.epochs == 3
    assert set(names(only(plan, ["control", "beyond-warp"]))) == {"control", "beyond-warp"}


@pytest.mark.parametrize(
    ("profile", "wishes", "message"),
    [
        ("slow", {}, "profile 'slow'; expected one of cpu, gpu, quick, faithful"),
        ("quick", {"trainer": "lazy"}, "trainer 'lazy'; expected one of faithful, fast, quick"),
        ("quick", {"training": {"epochs": 0}}, "setting 'epochs' = 0"),
        ("quick", {"sizes": (0.001,)}, "size 0.001 rounds to no change"),
        ("quick", {"source_class": "7"}, "source class 7 equals the target"),
        ("quick", {"target": "horse"}, "class 'horse'; expected one of 0, 1"),
        ("quick", {"single_count": 401}, "401 images to poison, but the source classes hold 400; expected 1 to 400"),
        ("quick", {"multiple_count": 0}, "0 images to poison, but the source classes hold 3600"),
        ("quick", {"device": "abacus"}, "device 'abacus'"),
    ],
)
def test_mistakes_are_one_line(profile: str, wishes: dict[str, object], message: str, tmp_path: Path) -> None:
    picture = str(draw_sunglasses(tmp_path / "sunglasses.png"))
    with pytest.raises(DoorwardError) as refused:
        check(make_plan(profile, Wishes(**wishes)), picture)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_every_attack_can_be_made(tmp_path: Path) -> None:
    picture = str(draw_sunglasses(tmp_path / "sunglasses.png"))
    check(make_plan("quick", Wishes(beyond=True)), picture)
    plan = make_plan("quick")
    whole = Plan(plan.source, plan.net, "quick", QUICK, (Case("a", "beyond", 0, "accessory", {}, (), 7, 10),))
    check(whole, picture)
    with pytest.raises(DoorwardError, match="no case 'b'; expected one of a"):
        only(whole, ["b"])
