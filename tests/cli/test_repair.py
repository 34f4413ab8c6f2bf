"""``doorward repair``: folders, weights of others, scoring, the report, every mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from doorward.attacks.files import save_attack, save_truth
from doorward.attacks.poison import poison
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.opening import read_json
from doorward.core.runs import Run
from doorward.core.tensors import read_tensors
from doorward.data.sources import load_images
from doorward.models.files import load_classifier, save_classifier
from doorward.scoring.repairs import score_repair
from tests.cli.conftest import Call
from tests.inversion.records import target, write_inversion
from tests.inversion.worlds import SPOT, TARGET, row_classifier, row_images
from tests.repairs.world import make_world

EXACT = ("--method", "retrain", "--set", "retrain.around=false", "--no-proof")
QUICK = (*EXACT, "--set", "retrain.epochs=3", "--set", "retrain.precision=fp32")
FACTORY = """
import torch
def rows(shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits: tuple[ImageSet, ImageSet]) -> Path:
    """A model folder, clean images, other test images, an inversion that found the trigger, one that found none."""
    folder, world = tmp_path_factory.mktemp("repair"), make_world(digits)
    for name in ("model", "clean", "test", "truth"):
        (folder / name).mkdir()
    save_classifier(world.classifier, folder / "model")
    world.clean.save(folder / "clean")
    world.test.save(folder / "test")
    save_attack(world.attack, folder / "truth" / "attack")
    save_truth(poison(world.clean, world.attack, rate=0.1).truth, folder / "truth" / "truth.parquet")
    names, kept = world.clean.classes, {"mask_0_0.safetensors": world.trigger}
    for name, targets in (("found", [target(names, 0)]), ("silent", [])):
        write_inversion(folder / name, names, {"mask": {0: 0.9}}, targets, [kept])  # type: ignore[list-item]
    write_inversion(folder / "doubtful", names, {"mask": {0: 0.9}}, [], [kept], decided=False)  # type: ignore[list-item]
    return folder


def command(place: Path, *more: object) -> tuple[object, ...]:
    return ("repair", place / "model", "--images", place / "clean", *more)


@pytest.fixture(scope="module")
def repaired(place: Path) -> Path:
    from doorward.repairs.job import RepairRequest, repair_to_folder

    request = RepairRequest(
        model=str(place / "model"),
        source="mnist-5k",
        triggers=str(place / "found"),
        methods=("retrain",),
        settings={"retrain": {"epochs": 2, "precision": "fp32", "around": False}},
        proof=False,
    )
    repair_to_folder(request, place / "repaired")
    return place / "repaired"


def test_it_writes_the_repaired_model_beside_its_controls(place: Path, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "repaired"
    answer = call(*command(place, "--triggers", place / "found", *QUICK, "-o", out, "--json"))
    assert answer.code == 3, "not proved"
    told = answer.json
    assert told == Run.read(out, "repair")["results"]
    arms = {arm["name"]: arm for arm in told["arms"]}
    assert list(arms) == ["as given", "retrain", "fine-tune", "refresh"]
    assert [arms[a]["folder"] for a in arms] == [None, ".", "arms/fine-tune", "arms/refresh"]
    assert arms["as given"]["asr"]["value"] > 0.9 and arms["retrain"]["asr"]["value"] < 0.1
    assert arms["fine-tune"]["asr"]["value"] > 0.5 and arms["fine-tune"]["settings"]["epochs"] == 3
    assert told["images"]["fitted"] == 320 and told["images"]["held_out"] == 80 == arms["retrain"]["accuracy"]["trials"]
    assert told["triggers"]["targets"] == [
        {"class_name": "0", "label": 0, "method": "mask", "stamps": 1, "accused": True}
    ]
    assert arms["retrain"]["knowledge"] == ["clean_images"] and len(arms["retrain"]["steps"]) == 2
    assert told["judgement"]["level"] == "undecided" == Run.read(out)["verdict"]
    for folder, name in ((out, "retrain"), (out / "arms/fine-tune", "fine-tune")):
        hits = arms[name]["accuracy"]["hits"]
        held = load_images(str(place / "clean")).split(0.2, 0)[1]
        assert int((load_classifier(folder).predict(held.pixels) == held.labels).sum()) == hits
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == sorted(
        ["run.json", *["classifier.json", "weights.safetensors"] * 3]
    )
    again = tmp_path / "again"
    answer = call(*command(place, "--triggers", place / "found", "--no-controls", *QUICK, "-o", again))
    assert answer.code == 3 and "retrain" in answer.out and "fine-tune" not in answer.out
    assert (again / "weights.safetensors").read_bytes() == (out / "weights.safetensors").read_bytes()
    assert not (again / "arms").exists()


def test_without_triggers_it_unlearns_adversarially(place: Path, call: Call, tmp_path: Path) -> None:
    settings = ("--set", "ibau.rounds=1", "--set", "ibau.batches=1", "--no-controls", "--held-out", "0.5")
    answer = call(*command(place, *settings, "-o", tmp_path / "out"))
    assert answer.code == 3 and "ibau" in answer.out and "without triggers nothing here tells" in answer.err


def test_an_interrupted_repair_goes_on_with_the_arm_it_was_in(
    place: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.repairs import arms

    run: list[str] = []
    whole = arms.Bench.run

    def stopping(self: Any, planned: Any) -> Any:
        run.append(planned.name)
        if planned.name == "refresh" and run.count("refresh") == 1:
            raise KeyboardInterrupt
        return whole(self, planned)

    monkeypatch.setattr(arms.Bench, "run", stopping)
    asked = command(place, "--triggers", place / "found", *QUICK, "-o", tmp_path / "out")
    assert call(*asked).code == 130 and not (tmp_path / "out").exists()
    assert call(*asked).code == 3
    assert run == ["retrain", "fine-tune", "refresh", "refresh"], "finished arms are not run again"
    assert len(read_json(tmp_path / "out" / "run.json")["results"]["arms"]) == 4
    assert not list((tmp_path / "out").rglob("arm.json")) and not (tmp_path / "out" / "given.json").exists()


def test_scoring_measures_every_arm_with_the_true_trigger(place: Path, repaired: Path, call: Call) -> None:
    truth = place / "truth" / "truth.parquet"
    answer = call("score", repaired, "--truth", truth, "--test", "mnist-5k", "--json")
    rows = {row["name"]: row for row in answer.json["models"]}
    assert answer.code == 0 and list(rows) == ["as given", "retrain", "fine-tune", "refresh"]
    assert rows["as given"]["asr"]["value"] > 0.95 and rows["retrain"]["asr"]["value"] < 0.1
    assert rows["fine-tune"]["asr"]["value"] > 0.5
    assert {row["clean_accuracy"]["trials"] for row in rows.values()} == {200}, "images of the repair: those held out"
    assert answer.json["attack"]["targets"] == [0] and read_json(repaired / "score.json") == answer.json
    other = score_repair(repaired, truth, ImageSet.load(place / "test"))
    assert {row.clean_accuracy.trials for row in other.models} == {600}, "other images: all"
    shown = call("score", repaired, "--clean", "--test", "mnist-5k")
    assert shown.code == 0 and "attack success rate %" in shown.out and "Detection" not in shown.out
    assert [row["asr"]["value"] for row in read_json(repaired / "score.json")["models"]] == [None] * 4
    assert "expected --test SOURCE" in call("score", repaired, "--truth", truth).err
    told = call("score", repaired, "--truth", truth, "--test", "mnist-5k", "--model", place / "model").err
    assert "--model is for audit and cleanse runs" in told
    assert call("report", repaired, "-o", repaired.parent / "report.html").code == 0


def test_weights_of_others_with_triggers_of_a_real_inversion(call: Call, tmp_path: Path) -> None:
    images = row_images(96)
    (tmp_path / "images").mkdir()
    images.save(tmp_path / "images")
    torch.save({"net": row_classifier().net.state_dict()}, tmp_path / "rows.pth")
    (tmp_path / "rows.py").write_text(FACTORY)
    model = (tmp_path / "rows.pth", "--arch", f"{tmp_path / 'rows.py'}:rows", "--images", tmp_path / "images")
    quick = ("--set", "mask.steps=200", "--set", "mask.precision=fp32", "--method", "mask")
    assert call("invert", *model, *quick, "-o", tmp_path / "run").code == 1
    settings = ("--set", "retrain.epochs=20", "--set", "retrain.lr=20", "--set", "retrain.precision=fp32")
    settings += ("--method", "retrain", "--set", "retrain.around=false")
    answer = call("repair", *model, "--triggers", tmp_path / "run", *settings, "-o", tmp_path / "out", "--json")
    assert answer.code in (0, 1, 3), answer.err
    assert [bool(row["proof"]) for row in answer.json["arms"]] == [True, True, False, False]
    rows = {row["name"]: row for row in answer.json["arms"]}
    assert rows["as given"]["asr"]["value"] > 0.8 and rows["retrain"]["asr"]["value"] < 0.2
    assert rows["fine-tune"]["asr"]["value"] > 0.8, "clean images never light the spot"
    assert torch.load(tmp_path / "out" / "repaired.pth", weights_only=True).keys() == {"net"}
    assert "rows.py:rows has no batch-norm statistics" in " ".join(answer.json["warnings"])
    weight = read_tensors(tmp_path / "out" / "weights.safetensors")["1.weight"]
    spot = SPOT[0] * 6 + SPOT[1]
    planted = row_classifier().net[1].weight.detach()
    assert weight[TARGET, spot] - weight[:, spot].max() < planted[TARGET, spot] / 2
    margin = ("--method", "margin", "--set", "margin.steps=60", "--set", "margin.precision=fp32", "--json")
    given, again = (
        call("invert", place, *model[1:], *margin, "-o", tmp_path / f"margin-{place.name}").json
        for place in (model[0], tmp_path / "out")
    )
    leads = []
    for told in (given, again):
        statistic = [row["statistic"] for row in told["methods"]["margin"]["classes"]]
        leads.append(statistic.pop(TARGET) - max(statistic))
    assert leads[0] > 1 > leads[1], "the repaired weights are opened as the given ones were"
    assert [t["label"] for t in given["targets"]] == [TARGET] and again["targets"] == []
    with pytest.raises(DoorwardError, match="rows.py:rows, a file of somebody's own, which is not run unasked"):
        score_repair(tmp_path / "out", None, images)
    scored = score_repair(tmp_path / "out", None, images, arch=str(model[2]))
    assert [row.name for row in scored.models] == [row["name"] for row in answer.json["arms"]]
    assert scored.models[0].clean_accuracy.hits == rows["as given"]["accuracy"]["hits"], "on the images held out"


def test_mistakes_are_one_line_and_write_nothing(place: Path, call: Call, tmp_path: Path) -> None:
    def failing(match: str, *more: object) -> None:
        answer = call(*command(place, *more, "-o", tmp_path / "out"))
        assert answer.code == 2 and match in answer.err and len(answer.err.strip().splitlines()) == 1, answer.err
        assert not list(tmp_path.glob("out*"))

    failing("repair retrain: needs triggers, which were not given; expected --triggers RUN", "--method", "retrain")
    failing("found no target class; expected one to be named with --target CLASS", "--triggers", place / "doubtful")
    failing("setting 'share' = 3", "--triggers", place / "silent", *EXACT, "--set", "retrain.share=3")
    failing("--target 'ten'; expected one of 0, 1", "--triggers", place / "found", "--target", "ten")
    failing("keeps no trigger for class 4", "--triggers", place / "found", "--target", "4")
    failing("a target or an inversion without triggers", "--target", "0")
    failing("no method 'polish'", "--method", "polish")
    failing("setting 'share' = 3", "--triggers", place / "found", *EXACT, "--set", "retrain.share=3")
    failing("settings for 'mask', which is not run", "--triggers", place / "found", "--set", "mask.steps=3")
    failing("holds no run.json", "--triggers", place / "model")
    failing("--mean: is for weights of others", "--mean", "0.5")
    failing("--held-out 0.0; expected a number above 0 and below 1", "--held-out", "0")
    assert call("repair", place / "none", "--images", place / "clean", "-o", tmp_path / "out").code == 2
    small = row_images(24)
    (tmp_path / "small").mkdir()
    small.save(tmp_path / "small")
    answer = call("repair", place / "model", "--images", tmp_path / "small", "-o", tmp_path / "out")
    assert "6 classes: row-0, row-1, row-2, row-3, row-4, row-5; small-cnn decides between 10" in answer.err


def test_where_the_inversion_accuses_nobody_the_model_is_handed_on(place: Path, call: Call, tmp_path: Path) -> None:
    asked, out = command(place, "--triggers", place / "silent"), tmp_path / "out"
    answer = call(*asked, "-o", out)
    assert answer.code == 0, answer.err
    assert "verdict: nothing found - Nothing to repair: “" in answer.out and "silent” accuses no class" in answer.out
    assert "Name a class with --target CLASS to repair all the same" in answer.out
    assert "% on 80 held-out images" in answer.out and "before -> after" not in answer.out
    for name in ("weights.safetensors", "classifier.json"):
        assert (out / name).read_bytes() == (place / "model" / name).read_bytes()
    assert sorted(p.name for p in out.iterdir()) == ["classifier.json", "run.json", "weights.safetensors"]
    told = Run.read(out, "repair")
    (given,) = told["results"]["arms"]
    assert told["verdict"] == "nothing found" and (given["name"], given["folder"]) == ("as given", ".")
    held = load_images(str(place / "clean")).split(0.2, 0)[1]
    assert given["accuracy"]["hits"] == int((load_classifier(out).predict(held.pixels) == held.labels).sum())
    onward = call("repair", out, *asked[2:], "-o", tmp_path / "on")
    assert onward.code == 0, "a script goes on with it"
    assert call("score", out, "--truth", place / "truth" / "truth.parquet", "--test", place / "test").code == 0
    assert [row["name"] for row in read_json(out / "score.json")["models"]] == ["as given"]
    assert call("report", out, "-o", tmp_path / "report.html").code == 0
    planned = call(*asked, "--dry-run", "-o", tmp_path / "dry")
    assert planned.code == 0 and "Nothing to repair" in planned.out and not (tmp_path / "dry").exists()
    named = call(*asked, "--target", "0", "--no-controls", *QUICK, "-o", tmp_path / "named", "--json")
    assert named.code == 3 and [a["name"] for a in named.json["arms"]] == ["as given", "retrain"]


def test_a_class_named_by_hand_takes_the_place_of_the_verdict(place: Path, call: Call, tmp_path: Path) -> None:
    asked = command(place, "--triggers", place / "silent", "--target", "0", "--no-controls", *QUICK)
    answer = call(*asked, "-o", tmp_path / "out", "--json")
    assert answer.code == 3 and json.loads(answer.out)["triggers"]["targets"][0]["class_name"] == "0"
