"""The verb and its command: one JSON object, one verdict, triggers on disk, every mistake in one line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import doorward
from doorward.cli import common
from doorward.cli.invert import invert_command
from doorward.core import methods as registry
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.inversion.files import load_stamps
from doorward.inversion.invert import invert
from doorward.inversion.job import InvertRequest, invert_to_folder
from doorward.inversion.judge.references import train_references
from doorward.inversion.methods.pixel import rising
from doorward.inversion.search import loop as invert_loop
from doorward.models.files import save_classifier
from doorward.models.nets.catalogue import build
from tests.inversion.worlds import CLASSES, SPOT, TARGET, row_classifier, row_images

FACTORY = """
import torch
def rows(shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""
QUICK = ("--set", "mask.steps=200", "--set", "mask.precision=fp32")
MARGIN = ("--method", "margin", "--set", "margin.steps=60")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, the planted net as a state dict, its clean twin, and the code of both."""
    folder = tmp_path_factory.mktemp("world")
    images = row_images(96)
    (folder / "images").mkdir()
    images.save(folder / "images")
    for name, planted in (("planted", True), ("clean", False)):
        torch.save({"net": row_classifier(planted).net.state_dict()}, folder / f"{name}.pth")
    (folder / "rows.py").write_text(FACTORY)
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, str, str]:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command("invert")(invert_command)
        monkeypatch.setattr(sys, "argv", ["doorward", "invert", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = app([*map(str, arguments)], standalone_mode=False)
        except DoorwardError as error:
            code = common.fail(str(error))
        streams = capsys.readouterr()
        return int(code or 0), streams.out, streams.err

    return run


def options(world: Path, name: str) -> tuple[object, ...]:
    return (world / f"{name}.pth", "--arch", f"{world / 'rows.py'}:rows", "--images", world / "images", *QUICK)


def test_a_planted_backdoor_is_found_shown_and_saved(world: Path, call: Any) -> None:
    out = world / "found"
    code, printed, _ = call(*options(world, "planted"), "--method", "mask", *MARGIN, "-o", out, "--json")
    told = json.loads(printed)
    assert code == 1 and told["judgement"]["level"] == "evidence" and told["judgement"]["p_value"] <= 0.01
    (target,) = told["targets"]
    assert target["class_name"] == f"row-{TARGET}" and target["p_value"] == told["judgement"]["p_value"]
    low, value, high = (target["asr"][k] for k in ("low", "value", "high"))
    assert low <= value <= high and value > 0.85 and 0 < target["size"] < 1
    assert len(told["classes"]) == CLASSES and told["methods"]["margin"]["given"] == ["model", "seed", "watch"]
    run = Run.read(out, "invert")
    assert run["results"] == told and run["verdict"] == "evidence"
    assert (out / target["file"]).exists() and told["findings"][0]["file"] == target["file"]
    (trigger,) = load_stamps(out, "mask", TARGET)
    assert int(trigger.alpha.argmax()) == SPOT[0] * 6 + SPOT[1]  # type: ignore[attr-defined]
    assert (out / "triggers" / f"mask_{TARGET}_0.png").exists()
    table = read_parquet(out / "classes.parquet")
    assert table["mask_statistic"].argmax() == TARGET and len(table["label"]) == CLASSES
    shown = told["thumbnails"]
    pictures = np.load(out / "thumbnails.npy", allow_pickle=False)
    rows = shown["stamped"]["mask"][str(TARGET)]
    assert pictures.shape[1:] == (6, 6, 1) and len(rows) == len(shown["clean"])
    changed = (pictures[rows].astype(int) - pictures[shown["clean"]])[:, SPOT[0], SPOT[1], 0]
    assert (changed > 0).all()
    assert not list(out.glob("*checkpoint*"))


def test_the_clean_twin_ends_with_zero_and_says_what_it_is(world: Path, call: Any) -> None:
    code, printed, _ = call(*options(world, "clean"), "--method", "mask", "-o", world / "clean")
    assert code == 0 and "verdict: nothing found" in printed


def test_folders_of_doorward_and_unlabelled_images(world: Path, call: Any) -> None:
    (world / "model").mkdir()
    classifier = row_classifier()
    torch.manual_seed(0)
    net = doorward.models.nets.catalogue.build("two-layer", classifier.shape, CLASSES)
    save_classifier(doorward.Classifier(net, "two-layer", classifier.classes, classifier.shape), world / "model")
    code, printed, _ = call(world / "model", "--shape", "1,6,6", "-o", world / "noimages", "--json", *MARGIN[2:])
    told = json.loads(printed)
    assert list(told["methods"]) == ["margin"] and told["images"] is None, "without images, what needs none"
    assert code == bool(told["targets"])
    own = (world / "model", "--images", world / "images", "--unlabelled", "-o", world / "own", "--json", *MARGIN)
    code, printed, _ = call(*own)
    told = json.loads(printed)
    assert told["warnings"] == [], "an untrained net tells little under any range; the folder says its own"
    assert code == bool(told["targets"]) and told["classifier"]["arch"] == "two-layer"
    command = (*options(world, "planted"), "--unlabelled", "--method", "mask", "-o", world / "unlabelled", "--json")
    code, printed, _ = call(*command)
    assert code == 1 and json.loads(printed)["targets"][0]["label"] == TARGET


def test_known_target_allows_no_verdict(world: Path, call: Any) -> None:
    known = ("--know", f"target_class={TARGET}", "--set", "pixel.steps=20", "--set", "pixel.size=1")
    command = (*options(world, "planted")[:5], "--method", "pixel", *known, "-o", world / "known", "--json")
    code, printed, _ = call(*command)
    told = json.loads(printed)
    assert code == 3 and told["judgement"]["level"] == "undecided" and told["judgement"]["p_value"] is None
    assert "1 classes to compare" in told["methods"]["pixel"]["undecided"]
    assert told["methods"]["pixel"]["knowledge"] == ["target_class"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method", "magic"), "no method 'magic'; expected one of"),
        (("--set", "pixel.size=2"), "settings for 'pixel', which does not run"),
        (("--set", "mask.steps=0"), "'steps' = 0"),
        (("--level", "2"), "level 2.0; expected a number between 0 and 1"),
        (("--know", "target_class=9"), "target_class '9'; expected one of row-0, row-1, .* or 0..5"),
        (("--know", "weather=fine"), "knowledge 'weather'"),
        (("--classes", "7"), "weights for 6 classes; expected 7"),
        (("--know", "target_class=c"), "target_class 'c'; expected one of"),
        (("--know", "true_trigger=1"), "knowledge 'true_trigger', which no method that runs uses"),
        (("--level", "nan"), "--level nan; expected a finite number"),
        (("--range", "0"), "--range '0'; expected 2 numbers"),
        (("--mean", "nan"), "--mean 'nan'; expected numbers"),
        (("--shape", "1,6,6.5"), "--shape '1,6,6.5'; expected 3 whole numbers"),
        (("--mean", "red"), "--mean 'red'; expected numbers"),
        (("--std", "1,2"), "--std of 2 numbers; expected 1 for grey"),
        (("--split", "middle"), "--split middle; expected train or test"),
    ],
)
def test_mistakes(more: tuple[str, ...], message: str, world: Path, call: Any, tmp_path: Path) -> None:
    code, printed, told = call(*options(world, "planted"), *more, "-o", tmp_path / "out")
    assert code == 2 and not printed and len(told.strip().splitlines()) == 1, told
    assert re.search(message, told), told
    assert list(tmp_path.iterdir()) == []


def test_weights_alone_and_missing_sizes(world: Path, call: Any, tmp_path: Path) -> None:
    code, _, told = call(world / "planted.pth", "--images", world / "images", "-o", tmp_path / "out")
    assert code == 2 and "weights alone; expected --arch with them: two-layer" in told
    code, _, told = call(world / "planted.pth", "--arch", "two-layer", "-o", tmp_path / "out")
    assert code == 2 and "expected --images SOURCE, --size N or --shape C,H,W" in told
    code, _, told = call(world / "model", "--range", "0,255", "-o", tmp_path / "out")
    assert code == 2 and "--range: is for weights of others" in told
    assert list(tmp_path.iterdir()) == []


def test_images_that_do_not_fit() -> None:
    images, classifier = row_images(), row_classifier()
    with pytest.raises(DoorwardError, match="6 images; expected at least 10"):
        invert(classifier, images.subset(np.arange(6)))
    with pytest.raises(DoorwardError, match="images of 1x5x6; the classifier takes 1x6x6"):
        invert(classifier, ImageSet(images.pixels[:, 1:], images.labels, images.classes))
    with pytest.raises(DoorwardError, match="7 classes, the classifier has 6"):
        invert(classifier, ImageSet(images.pixels, images.labels, (*images.classes, "more")))
    with pytest.raises(DoorwardError, match="mask: needs clean images"):
        invert(classifier, None, ["mask"])


def test_methods_that_did_not_converge_decide_nothing() -> None:
    found = invert(row_classifier(), row_images(), ["mask"], settings={"mask": {"steps": 2, "lr": 1e-6}})
    assert found.verdict == "undecided" and found.p_value is None and not found.targets
    assert found.outcomes["mask"].undecided == (
        "the search had not come to rest: 0 of 6 classes came to a result in 2 steps; "
        "expected more: --set mask.steps=400"
    )
    assert "no mask reached a success rate" in found.outcomes["mask"].inverted.warnings[0]


@pytest.mark.parametrize(("method", "few"), [("mask", 20), ("universal", 5), ("pairwise", 2), ("margin", 10)])
def test_an_unfinished_search_decides_nothing_and_says_what_to_do(method: str, few: int) -> None:
    usual = registry.get("invert", method).configure().steps  # type: ignore[attr-defined]
    short = {method: {"steps": few, "precision": "fp32"}}
    found = invert(row_classifier(), row_images(96), [method], settings=short)
    told = found.outcomes[method].undecided
    assert found.verdict == "undecided" and found.p_value is None
    assert told.endswith(f"in {few} steps; expected more: --set {method}.steps={usual}") and "not come to rest" in told
    whole = invert(row_classifier(), row_images(96), [method], settings={method: {"precision": "fp32"}})
    assert whole.p_value is not None and whole.outcomes[method].inverted.converged.all()


def test_an_unfinished_search_contributes_no_p_value() -> None:
    settings = {"mask": {"steps": 20, "precision": "fp32"}, "margin": {"steps": 200, "precision": "fp32"}}
    both = invert(row_classifier(), row_images(96), ["mask", "margin"], settings=settings)
    alone = invert(row_classifier(), row_images(96), ["margin"], settings={"margin": settings["margin"]})
    assert both.p_value == alone.p_value and both.outcomes["mask"].test is None


def test_a_search_of_pixels_whose_success_still_rises_has_not_come_to_rest() -> None:
    hits, trials = torch.tensor([300.0, 110.0, 0.0, 50.0]), torch.full((4,), 1000.0)
    before = torch.tensor([100.0, 100.0, 0.0, 400.0])
    held = {"hits": hits, "trials": trials, "earlier_hits": before, "earlier_trials": trials}
    assert rising(held).tolist() == [True, False, False, False], "by chance, never, falling"
    found = invert(row_classifier(), row_images(96), ["pixel"], settings={"pixel": {"size": 1, "precision": "fp32"}})
    assert found.outcomes["pixel"].inverted.converged.all() and found.p_value is not None


def test_several_methods_are_corrected_for() -> None:
    settings = {"mask": {"steps": 200, "precision": "fp32"}, "margin": {"steps": 60}}
    found = invert(row_classifier(), row_images(96), ["mask", "margin"], settings=settings)
    single = [o.test.p_value for o in found.outcomes.values() if o.test is not None]
    assert found.p_value == pytest.approx(1 - (1 - min(single)) ** 2) and found.target_labels == (TARGET,)


def test_a_prescreen_inverts_the_largest_margins_alone() -> None:
    settings = {"mask": {"steps": 200, "precision": "fp32"}, "margin": {"steps": 60}}
    found = invert(row_classifier(), row_images(96), ["mask", "margin"], settings=settings, prescreen=4)
    inverted = found.outcomes["mask"].inverted
    assert np.isfinite(inverted.statistic).sum() == inverted.ran_out.sum() == len(inverted.triggers) == 4
    assert found.target_labels == (TARGET,) and found.outcomes["mask"].test is not None
    with pytest.raises(DoorwardError, match="prescreen 3; expected 4 to 6 classes"):
        invert(row_classifier(), row_images(), prescreen=3)


def test_references_take_out_what_any_net_shows(world: Path, call: Any) -> None:
    clean = ("--reference", world / "clean.pth", "--reference", world / "clean.pth")
    command = (*options(world, "planted"), "--method", "mask", *clean, "-o", world / "referenced", "--json")
    code, printed, _ = call(*command)
    told = json.loads(printed)
    assert code == 1 and [t["label"] for t in told["targets"]] == [TARGET] and len(told["references"]) == 2
    twin, rows = Run.read(world / "clean")["results"]["methods"]["mask"], told["methods"]["mask"]["classes"]
    shown = [row["reference"] for row in rows]
    assert shown == pytest.approx([row["statistic"] for row in twin["classes"]], abs=1e-6)
    wrong = doorward.Classifier(row_classifier().net, "rows", tuple("abcdefg"), (1, 6, 6))
    with pytest.raises(DoorwardError, match="reference rows: 1x6x6, 7 classes; expected the classifier's own"):
        invert(row_classifier(), row_images(), references=[wrong])


def test_references_can_be_trained_on_the_clean_images(world: Path, call: Any) -> None:
    trained = ("--train-references", 2, "--set", "margin.steps=60")
    command = (*options(world, "clean")[:5], "--method", "margin", *trained, "-o", world / "trained", "--json")
    assert call(*command, "--unlabelled")[0] == 2 and not (world / "trained").exists()
    code, printed, _ = call(*command)
    told = json.loads(printed)
    assert code == bool(told["targets"]) and told["references"] == [f"{world / 'rows.py'}:rows"] * 2
    nets, warnings = train_references(row_images(96), 2, net="two-layer", seed=5)
    found = invert(row_classifier(), row_images(96), ["margin"], settings={"margin": {"steps": 60}}, references=nets)
    assert not warnings and found.target_labels == (TARGET,)
    with pytest.raises(DoorwardError, match="2 images of a class; expected 10 or more"):
        train_references(row_images(12), 1)


def test_an_interrupted_run_goes_on_to_the_same_result(world: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*options(world, "planted"), "--method", "mask", "--seed", 4)
    call(*command, "-o", world / "whole")
    original, calls = invert_loop.save_checkpoint, []

    def interrupted(*arguments: Any) -> None:
        original(*arguments)
        calls.append(arguments[1])
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(invert_loop.Watch, "due", lambda self: self.checkpoint is not None)
    monkeypatch.setattr(invert_loop, "save_checkpoint", interrupted)
    assert call(*command, "-o", world / "again")[0] == common.INTERRUPTED
    assert not (world / "again").exists()
    assert call(*command, "-o", world / "again")[0] == 1 and calls[3] > calls[2], "went on, did not start over"
    first, second = (Run.read(world / name)["results"]["methods"]["mask"]["classes"] for name in ("whole", "again"))
    assert first == second


def test_grey_images_are_repeated_for_a_colour_net_and_it_is_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build("small-cnn", (3, 16, 16), 5)
    torch.save(net.state_dict(), tmp_path / "colour.pt")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=pixels, labels=np.arange(40) % 5)
    request = InvertRequest(
        model=str(tmp_path / "colour.pt"),
        arch="small-cnn",
        source=str(tmp_path / "grey.npz"),
        methods=("mask",),
        settings={"mask": {"steps": 2, "batch": 4}},
    )
    record = invert_to_folder(request, tmp_path / "run").record
    assert any("grey images, repeated over three channels" in w for w in record.warnings)
    assert record.images is not None and record.images.shape == (3, 16, 16)
    misfit = request.model_copy(update={"arch": "two-layer"})
    with pytest.raises(DoorwardError, match="colour.pt"):
        invert_to_folder(misfit, tmp_path / "other")
