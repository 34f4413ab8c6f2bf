"""The experiment's triggers and plan: which patterns, which arms, what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from doorward.cli.app import app
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.papers.mesa import work
from doorward.papers.mesa.arms import arms, inversions, skip
from doorward.papers.mesa.patterns import black_white, black_white_masks, orbit, random_colour, spread_over, square
from doorward.papers.mesa.plan import Case, Plan, Wishes, check, make_plan, only
from doorward.papers.mesa.profiles import PUBLISHED
from doorward.repairs.methods.retrain import AUTHORS


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits in place of CIFAR-10, which may not have been fetched: ten classes either way."""
    from doorward.data.sources import load_images
    from doorward.papers.mesa import plan

    monkeypatch.setattr(plan, "load_images", lambda source, **more: load_images("mnist-5k", **more))


def test_there_are_51_masks_and_they_stand_for_all_512() -> None:
    masks = black_white_masks()
    assert len(masks) == 51
    orbits = [orbit(mask) for mask in masks]
    assert sorted(mask for one in orbits for mask in one) == list(range(512)), "disjoint, and nothing left out"
    assert orbit(0) == {0, 511} and len(orbit(0b101010101)) == 2
    corner = orbit(0b100000000)
    assert len(corner) == 8 and {1, 4, 64, 256, 511 - 1} <= corner


def test_orbits_are_closed_under_every_symmetry() -> None:
    for mask in (3, 45, 86):
        pixels = square(mask)
        for other in (np.rot90(pixels), pixels[::-1], pixels[:, ::-1], pixels.T, 1 - pixels):
            assert int("".join(map(str, other.ravel())), 2) in orbit(mask)


def test_patterns_are_what_their_numbers_say() -> None:
    assert square(0b100011110).tolist() == [[1, 0, 0], [0, 1, 1], [1, 1, 0]]
    assert black_white(49, 3)[1].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]], "the checkerboard, mask 170"
    assert black_white(0, 1).sum() == 0 and black_white(50, 3).shape == (3, 3, 3)
    colours = torch.stack([random_colour(n, 3, seed=4) for n in range(10)])
    assert len(colours.flatten(1).unique(dim=0)) == 10
    assert torch.equal(colours * 255, (colours * 255).round()), "on the 8-bit grid"
    assert torch.equal(colours[3], random_colour(3, 3, seed=4)) and not torch.equal(colours[3], random_colour(3, 3, 5))
    assert spread_over(51, 6) == (4, 12, 21, 29, 38, 46) and spread_over(51, 51) == tuple(range(51))


def test_the_authors_figures_are_as_on_the_poster() -> None:
    black, colour = PUBLISHED["black-white"], PUBLISHED["colour"]
    assert black["mesa-ensemble"] == (3.6, 8.2) and black["oracle"] == (2.4, 3.7)
    assert black["pixel-short"] == (10.5, 51.4)
    assert [black[f"mesa-beta-{b}"] for b in (0.9, 0.8, 0.5)] == [(3.4, 5.9), (3.6, 9.1), (4.2, 9.0)]
    assert colour["pixel-short"][0] == 22.75 and colour["mesa-ensemble"][0] == 1.91


def test_the_gpu_profile_is_the_authors_experiment(cifar: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DoorwardError, match="profile 'gpu' on a machine without CUDA GPU; expected one, or profile"):
        make_plan("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plan = make_plan("gpu", Wishes(without_crutches=False))
    kinds = [case.kind for case in plan.cases]
    assert (kinds.count("black-white"), kinds.count("colour")) == (51, 10) and plan.net == "resnet18"
    assert (plan.probability, plan.evaluated, plan.rounds, plan.pixel.runs) == (0.01, 0.2, 1, 10)
    a = plan.attack
    assert (a.epochs, a.lr, a.momentum, a.weight_decay, a.batch, a.schedule) == (10, 1e-3, 0.9, 0, 128, "constant")
    assert not a.flip and not a.shift, "the attacked net sees no augmentation"
    m = plan.mesa
    assert (m.steps, m.batch, m.width, m.lr, m.alpha, m.betas()) == (620, 128, 512, 2e-4, 0.1, (0.5, 0.8, 0.9))
    assert {k: getattr(plan.repair, k) for k in AUTHORS} == AUTHORS and plan.repair.held_out == 0
    assert any(case.place == "fixed" for case in make_plan("gpu").cases)


def test_the_cpu_profile_fits_into_hours(cifar: None) -> None:
    plan = make_plan("cpu")
    free = [case for case in plan.cases if case.place == "free"]
    assert [c.number for c in free if c.kind == "black-white"] == [4, 12, 21, 29, 38, 46]
    assert [c.number for c in free if c.kind == "colour"] == [0, 1, 2]
    assert {c.name for c in plan.cases if c.place == "fixed"} == {"bw-29-fixed", "colour-01-fixed"}
    assert [c.name for c in plan.cases if c.shown] == ["bw-29"], "the figures show the middle of the list"
    trained = plan.clean.epochs * 50_000
    for case in plan.cases:
        repairs = [arm for arm in arms(plan, case) if arm.method != "refresh"]
        trained += plan.attack.epochs * 50_000 * 2 + len(repairs) * plan.repair.epochs * 8_000
    assert trained / 2 / 540 < 3.2 * 3600, "two processes at 540 images/s each"
    stamped = plan.repair.epochs * plan.repair.share
    assert stamped == pytest.approx(AUTHORS["epochs"] * AUTHORS["share"]), "as many stamped images as the authors'"


def test_arms_are_told_what_they_need_and_no_more(cifar: None) -> None:
    plan = make_plan("cpu")
    case = next(c for c in plan.cases if c.beyond and c.place == "free")
    told = {arm.name: set(arm.told) for arm in arms(plan, case)}
    assert told["oracle"] == {"true trigger"} and told["fine-tune"] == told["refresh"] == told["mask"] == set()
    assert told["ibau"] == told["prune"] == told["mask-default"] == set()
    searching = ("mesa-ensemble", "pixel", "pixel-short", "mesa-beta-0.9", "mesa-default", "unlearn")
    assert all(told[name] == {"target class", "size"} for name in searching)
    assert told["mesa-5"] == told["pixel-alpha-7"] == {"target class"} and told["mesa-unknown"] == {"size"}
    searched = {i.name: i for i in inversions(plan, case)}
    assert {n for n, i in searched.items() if not i.knows_target} == {"mask", "mesa-unknown"}
    assert searched["mesa-7"].settings["size"] == 7 and searched["pixel-alpha-5"].settings["transparency"] is True
    assert searched["mesa"].settings["size"] == 3
    budgets = [searched[n].settings["steps"] * searched[n].settings["batch"] for n in ("pixel", "pixel-short")]
    assert budgets == [12_800, 3_968], "the authors' five passes over a tenth of 8,000 images come to 4,000"
    plain = next(c for c in plan.cases if not c.beyond)
    names = [arm.name for arm in arms(plan, plain)]
    assert names.count("pixel") == 3 and len(names) == 18
    assert {i.name for i in inversions(plan, plain)} == {"mesa", "pixel", "pixel-short"}
    folders = [arm.folder for arm in arms(plan, case)]
    assert len(set(folders)) == len(folders)


def test_skipped_arms_take_their_searches_with_them(cifar: None) -> None:
    whole = make_plan("cpu")
    plain = next(c for c in whole.cases if not c.beyond)
    beyond = next(c for c in whole.cases if c.beyond and c.place == "free")
    plan = skip(whole, ["ibau", "pixel-short", "mesa-5"])
    left = {arm.name for arm in arms(plan, beyond)}
    assert {arm.name for arm in arms(whole, beyond)} - left == {"ibau", "pixel-short", "mesa-5"}
    gone = {i.name for i in inversions(whole, beyond)} - {i.name for i in inversions(plan, beyond)}
    assert gone == {"pixel-short", "mesa-5"}
    assert plan.manifest() == whole.manifest(), "arms left out change no other result"
    every = [arm.name for arm in arms(whole, beyond)]
    few = skip(whole, [name for name in every if name not in ("mesa-unknown", "fine-tune")])
    assert {i.name for i in inversions(few, beyond.model_copy(update={"shown": False}))} == {
        "mesa", "mask", "mesa-unknown",
    }, "the verdict, and the target's triggers in case it names the target"  # fmt: skip
    assert inversions(few, plain) == []
    assert {i.name for i in inversions(few, plain.model_copy(update={"shown": True}))} == {"mesa", "pixel"}
    with pytest.raises(DoorwardError, match="no arm 'ibua'; expected one of oracle, mesa-beta-0.5"):
        skip(whole, ["ibua"])


def test_the_attackers_trigger_lies_where_the_case_says() -> None:
    free, fixed = (Case(kind="black-white", number=49, place=p) for p in ("free", "fixed"))
    (pairing,) = free.attack((1, 28, 28), 3, seed=0).pairings
    assert pairing.target == 3 and pairing.sources is None
    black = torch.zeros(64, 1, 28, 28)
    stamped = pairing.stamp.apply(black, torch.Generator().manual_seed(0))
    assert len({tuple(map(tuple, image[0].nonzero().tolist())) for image in stamped}) > 50, "a place per image"
    (pairing,) = fixed.attack((1, 28, 28), 3, seed=0).pairings
    (image,) = pairing.stamp.apply(black[:1])
    assert image[0].nonzero().min(0).values.tolist() == [24, 24] and image[0].nonzero().max() == 26
    assert (free.name, fixed.name) == ("bw-49", "bw-49-fixed")


def test_other_images_and_nets_may_be_asked_for(tmp_path: Path) -> None:
    images = {f"x_{s}": np.zeros((40, 8, 8, 1), np.uint8) for s in ("train", "test")}
    labels = {f"y_{s}": np.arange(40) % 4 for s in ("train", "test")}
    np.savez(tmp_path / "mine.npz", **images, **labels)
    plan = make_plan("quick", Wishes(source=str(tmp_path / "mine.npz"), net="two-layer", target="3"))
    check(plan)
    assert (plan.net, plan.target) == ("two-layer", 3)
    with pytest.raises(DoorwardError, match="net 'vgg'; expected one of"):
        check(plan.model_copy(update={"net": "vgg"}))


def names(plan: Plan) -> list[str]:
    return [case.name for case in plan.cases]


def test_wishes_change_the_profile() -> None:
    assert names(make_plan("quick")) == ["bw-34", "bw-38"]
    plan = make_plan("quick", Wishes(black_white=3, colour=1, without_crutches=True, seed=5, target="7"))
    assert names(plan) == ["bw-34", "colour-00", "bw-38", "bw-00", "colour-00-fixed", "bw-38-fixed"]
    assert plan.seed == 5 and plan.target == 7
    assert sorted(names(make_plan("quick", Wishes(black_white=51)))) == [f"bw-{n:02d}" for n in range(51)]
    changed = make_plan("quick", Wishes(settings={"repair": {"epochs": 2}, "pixel": {"runs": 1}}))
    assert changed.repair.epochs == 2 and changed.pixel.runs == 1
    assert names(only(plan, ["bw-00", "bw-34"])) == ["bw-34", "bw-00"] and only(plan, []) == plan
    for asked, pictured in ((["bw-00", "bw-34"], "bw-34"), (["colour-00", "bw-00", "colour-00-fixed"], "colour-00")):
        assert [c.name for c in only(plan, asked).cases if c.shown] == [pictured]
    shown = make_plan("quick", Wishes(black_white=0, colour=2)).cases
    assert [c.shown for c in shown] == [False, True]


@pytest.mark.parametrize(
    ("profile", "wishes", "message"),
    [
        ("slow", {}, "profile 'slow'; expected one of cpu, gpu, quick"),
        ("quick", {"settings": {"poison": {"epochs": 1}}}, "--set poison.NAME; expected one of clean, attack, mesa"),
        ("quick", {"settings": {"mesa": {"steps": 0}}}, "reproduce: mesa: setting 'steps' = 0"),
        ("quick", {"settings": {"repair": {"speed": 1}}}, "no setting 'speed'; settings: "),
        ("quick", {"settings": {"mesa": {"size": 29}}}, "triggers of 29 x 29 on images of 28 x 28; expected larger"),
        ("quick", {"black_white": 0}, "no trigger is left to run; expected at least one"),
        ("quick", {"target": "horse"}, "class 'horse'; expected one of 0, 1"),
        ("quick", {"device": "abacus"}, "device 'abacus'"),
    ],
)
def test_mistakes_are_one_line(profile: str, wishes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DoorwardError) as refused:
        check(make_plan(profile, Wishes(**wishes)))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_case_is_one_line() -> None:
    with pytest.raises(DoorwardError, match="no case 'bw-99'; expected one of bw-34, bw-38"):
        only(make_plan("quick"), ["bw-99"])


def test_success_of_single_triggers_by_hand() -> None:
    class Bright:
        """Class 1 when the image's brightest pixel is white."""

        def predict(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return (pixels.reshape(len(pixels), -1).max(1) == 255).astype(np.int64)

    images = ImageSet(np.full((6, 8, 8, 1), 9, np.uint8), np.array([0, 1] * 3), ("a", "b"))
    patterns = torch.stack([torch.zeros(1, 3, 3), torch.ones(1, 3, 3)])
    draws = torch.Generator().manual_seed(0)
    opaque, clear = torch.ones(2, 1, *patterns.shape[2:]), torch.zeros(2, 1, *patterns.shape[2:])

    def rates(alphas: Tensor) -> list[float]:
        found = work.each_success(Bright(), patterns, alphas, images, 1, draws)  # type: ignore[arg-type]
        return found.tolist()

    assert rates(opaque) == [0, 1] and rates(clear) == [0, 0]


def test_the_command_lists_its_stages(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "mesa", "--profile", "quick", "--only", "bw-34", "--dry-run",
                                      "-o", str(tmp_path / "runs"), "--json"])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert '"stage": "bw-34: repair after-mesa-ensemble", "state": "to run"' in result.stdout
    assert not (tmp_path / "runs").exists() and '"seconds": ' in result.stdout
