"""``doorward audit`` around a verb that is stood in for: the folder, the page, exit codes, mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doorward.audits.results import Audit
from doorward.cli.audit import exit_code
from doorward.core.images import ImageSet
from doorward.core.results import LEVELS, ImagesRecord
from doorward.core.runs import versions
from doorward.data.export import export_images
from doorward.data.sources import load_images
from doorward.models.files import load_classifier, save_classifier
from doorward.models.train.loop import train
from tests.audits.records import TARGET, made_alone, made_audit, made_doubtful, made_images
from tests.cli.conftest import Call


class Verb:
    """In place of the verb: notes its arguments, gives the verdict that it is told to."""

    def __init__(self) -> None:
        self.level: Any = "planted"
        self.asked: dict[str, Any] = {}
        self.images: ImageSet | None = None
        self.error: BaseException | None = None

    def __call__(self, images: ImageSet | None, model: Any = None, clean: Any = None, **more: Any) -> Audit:
        self.images, self.asked = images, {"model": model, "clean": clean, **more}
        (more["folder"] / "round-1").mkdir(parents=True, exist_ok=True)
        (more["folder"] / "round-1" / "step.npz").write_bytes(b"kept")
        if self.error is not None:
            raise self.error
        if images is None:
            return made_alone("suspicious")
        repaired = train(images.portion(0.2, 1), "two-layer", {"epochs": 1}) if self.level == "planted" else None
        return made_audit(self.level, images, np.flatnonzero(images.labels == TARGET)[:20], repaired)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Verb:
    made = Verb()
    monkeypatch.setattr("doorward.audits.job.audit", made)
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("audit") / "photos"
    export_images(made_images(), place, "folder")
    return place


def test_the_folder_holds_everything_and_no_steps(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    run = tmp_path / "audit"
    answer = call("audit", photos, "--minutes", 5, "--seed", 3, "-o", run)
    assert answer.code == 1, answer.err
    assert (verb.asked["minutes"], verb.asked["seed"], verb.asked["model"]) == (5, 3, None)
    names = {path.name for path in run.iterdir()}
    assert names == {
        "run.json", "audit.json", "suspects.csv", "samples.parquet", "triggers", "thumbnails.npy", "model",
        "report.html", "audit.sarif",
    }  # fmt: skip
    assert load_classifier(run / "model").arch == "two-layer"
    assert json.loads((run / "audit.json").read_text())["verdict"] == "planted"
    assert "verdict: planted - A backdoor into “7” was planted: 20 images to leave out" in answer.out
    assert f"doorward export {run} --keep -o photos-clean" in answer.out
    assert Audit.load(run).facts.source == str(photos)


def test_a_dry_run_tells_every_stage_and_writes_nothing(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    run = tmp_path / "audit"
    answer = call("audit", photos, "--dry-run", "-o", run)
    assert answer.code == 0, answer.err
    for stage in (
        "train: small-cnn",
        "cleansers:",
        "contradictions: 6 trainings",
        "inversion:",
        "locate and experiment",
    ):
        assert stage in answer.out
    assert not verb.asked and not run.exists()


def test_json_prints_what_audit_json_holds(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    verb.level = "nothing found"
    answer = call("audit", photos, "--json", "-o", tmp_path / "audit")
    assert answer.code == 0
    assert answer.json == json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert list(answer.json) == ["verdict", "p_value", "targets", "suspects", "stages", "left_out"]


def test_exit_codes_follow_fail_on() -> None:
    def codes(fail_on: str) -> list[int]:
        return [exit_code(level, fail_on) for level in ("planted", "evidence", "suspicious", "undecided")]

    assert codes("suspicious") == [1, 1, 1, 3]
    assert codes("evidence") == [1, 1, 0, 3]
    assert codes("planted") == [1, 0, 0, 3]
    assert all(exit_code(level, "suspicious") in (0, 1, 3) for level in LEVELS)
    assert exit_code("nothing found", "planted") == 0


def test_fail_on_decides_the_command(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    verb.level = "suspicious"
    assert call("audit", photos, "--fail-on", "evidence", "-o", tmp_path / "a").code == 0
    verb.level = "undecided"
    assert call("audit", photos, "--fail-on", "planted", "-o", tmp_path / "b").code == 3
    answer = call("audit", photos, "--fail-on", "all", "-o", tmp_path / "c")
    assert answer.code == 2 and "--fail-on 'all'; expected planted, evidence or suspicious" in answer.err


def test_an_interrupted_audit_keeps_its_steps(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    verb.error = KeyboardInterrupt()
    answer = call("audit", photos, "-o", tmp_path / "audit")
    assert answer.code == 130 and "the same command goes on from here" in answer.err
    step = tmp_path / "audit.partial" / "steps" / versions()["doorward"] / "round-1" / "step.npz"
    assert step.read_bytes() == b"kept"
    verb.error = None
    assert call("audit", photos, "-o", tmp_path / "audit").code == 1
    assert verb.asked["folder"] == step.parent.parent and not (tmp_path / "audit" / "steps").exists()


def test_model_and_clean_images_are_opened(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_classifier(train(made_images(), "two-layer", {"epochs": 3}), tmp_path / "model")
    export_images(made_images(12, 0), tmp_path / "clean", "folder")
    given = ("--model", tmp_path / "model", "--clean", tmp_path / "clean")
    assert call("audit", photos, *given, "-o", tmp_path / "both").code == 1
    assert (verb.asked["model"].arch, verb.asked["net"], len(verb.asked["clean"])) == ("two-layer", "two-layer", 120)
    answer = call("audit", *given, "-o", tmp_path / "alone")
    assert answer.code == 1 and verb.images is None
    assert "suspects.csv" not in answer.out and "doorward export" not in answer.out
    told = call("export", tmp_path / "alone", "-o", tmp_path / "out")
    assert told.code == 2 and "a model alone was audited" in told.err


def test_doubtful_images_are_left_out_on_request(photos: Path, call: Call, tmp_path: Path) -> None:
    images = load_images(photos)
    found = replace(made_doubtful(), images=images)
    assert found.samples is not None
    facts = found.facts.model_copy(update={"images": ImagesRecord.of(images)})
    replace(found, facts=facts, samples=replace(found.samples, ids=images.ids)).save(tmp_path / "run")
    given = ("export", tmp_path / "run", "--source", photos, "-o")
    told = call(*given, tmp_path / "all").out + call(*given, tmp_path / "some", "--doubtful").out
    assert "600 images" in told and "580 images" in told and "20 suspects left out" in told
    none = call(*given, tmp_path / "none", "--suspects")
    assert none.code == 2 and "has no suspects; expected a run with some, or --keep" in none.err
    assert call(*given, tmp_path / "those", "--suspects", "--doubtful").code == 0
    assert len(list((tmp_path / "those").rglob("*.png"))) == 20


def test_clean_images_that_the_model_takes_for_one_class_are_refused_at_once(call: Call, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_classifier(train(made_images(), "two-layer", {"epochs": 3}), tmp_path / "model")
    threes = made_images(12, 0).subset(np.repeat(np.arange(10), 12) == 3)
    others = ImageSet(threes.pixels, np.arange(12) % 2, ("cat", "dog"), "others")
    export_images(others, tmp_path / "others", "folder")
    for more in ((), ("--dry-run",)):
        given = ("--model", tmp_path / "model", "--clean", tmp_path / "others", "-o", tmp_path / "audit")
        answer = call("audit", *given, *more)
        assert answer.code == 2 and "others: all 12 images are of class “3”" in answer.err
        assert "expected clean images of several" in answer.err and answer.err.count("\n") == 1


def test_clean_images_of_other_classes_are_refused(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    images = made_images(12, 0)
    renamed = ImageSet(images.pixels, images.labels, tuple("abcdefghij"), "others")
    export_images(renamed, tmp_path / "others", "folder")
    answer = call("audit", photos, "--clean", tmp_path / "others", "-o", tmp_path / "audit")
    assert answer.code == 2 and "expected the classes of the training set" in answer.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "no training set; expected SOURCE, or --model with --clean SOURCE"),
        (("--model", "m"), "no training set; expected SOURCE, or --clean SOURCE to audit the model alone"),
        (("photos", "--arch", "two-layer"), "--arch without a model; expected --model MODEL with it; --net says"),
        (("photos", "--range", "0,1"), "--range without a model"),
        (("photos", "--net", "three-layer"), "net 'three-layer'"),
        (("photos", "--minutes", "0"), "--minutes 0.0; expected a number above 0"),
        (("photos", "--level", "2"), "--level 2.0"),
        (("--model", "m", "--clean", "photos", "--power"), "--power without a training set; expected SOURCE"),
    ],
)
def test_mistakes_are_one_line(
    more: tuple[str, ...], message: str, photos: Path, verb: Verb, call: Call, tmp_path: Path
) -> None:
    answer = call("audit", *(photos if text == "photos" else text for text in more), "-o", tmp_path / "audit")
    assert answer.code == 2 and message in answer.err and answer.err.count("\n") == 1
    assert not (tmp_path / "audit").exists() and verb.images is None


def test_train_leaves_the_suspects_out(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    run, again = tmp_path / "audit", ("--net", "two-layer", "--epochs", "1", "--without", tmp_path / "audit")
    call("audit", photos, "-o", run)
    assert call("train", photos, *again, "-o", tmp_path / "model").code == 0
    assert json.loads((tmp_path / "model" / "run.json").read_text())["results"]["images"] == 580
    for more, message in ((("--by", "audit"), "an audit, which has one list"), ((), "looked at other images")):
        source = photos if more else "mnist-5k"
        refused = call("train", source, *again, *more, "-o", tmp_path / "wrong")
        assert refused.code == 2 and message in refused.err and not (tmp_path / "wrong").exists()


def test_export_takes_the_suspects_out(photos: Path, verb: Verb, call: Call, tmp_path: Path) -> None:
    call("audit", photos, "-o", tmp_path / "audit")
    suspects = Audit.load(tmp_path / "audit").suspects()
    answer = call("export", tmp_path / "audit", "--keep", "-o", tmp_path / "clean")
    assert answer.code == 0 and "580 images" in answer.out and "20 suspects left out" in answer.out
    kept = load_images(tmp_path / "clean")
    assert len(kept) == 580 and not set(kept.ids) & set(suspects)
    assert call("export", tmp_path / "audit", "--suspects", "--format", "ids", "-o", tmp_path / "ids").code == 0
    assert (tmp_path / "ids").read_text().split() == suspects
