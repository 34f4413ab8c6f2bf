"""``doorward screen``: stamped images end with 1, clean ones with 0, triggers come from an inversion run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core.images import ImageSet
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.screens.results import Screening
from doorward.screens.screen import screen
from tests.cli.conftest import Call
from tests.inversion.records import target, write_inversion
from tests.screens.worlds import NAMES, TARGET, stamp, stamped, striped, stripes

FACTORY = """
from tests.screens.worlds import Striped
def striped(shape, classes):
    return Striped(False)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a backdoored net, clean and stamped images, an inversion that found the stamp, one that did not."""
    folder = tmp_path_factory.mktemp("screen")
    torch.save(striped().net.state_dict(), folder / "net.pth")
    (folder / "net.py").write_text(FACTORY)
    others = stripes(80, seed=3)
    few, theirs = stamped(others), others.labels[others.labels != TARGET]
    sets = {"known": stripes(seed=1), "clean": stripes(150, seed=2)}
    pixels, labels = np.concatenate([sets["clean"].pixels, few]), np.concatenate([sets["clean"].labels, theirs])
    sets["mixed"] = ImageSet(pixels, labels, NAMES)
    for name, images in sets.items():
        (folder / name).mkdir()
        images.save(folder / name)
    kept = {f"mask_{TARGET}_0.safetensors": stamp()}
    for name, targets in (("found", [target(NAMES, TARGET)]), ("silent", [])):
        write_inversion(folder / name, NAMES, {"mask": {TARGET: 0.9}}, targets, [kept])
    return folder


def asked(place: Path, images: str, *more: object) -> tuple[object, ...]:
    model = ("screen", place / "net.pth", "--arch", f"{place / 'net.py'}:striped")
    return (*model, "--images", place / images, "--clean", place / "known", *more)


def test_stamped_images_end_with_one_and_clean_ones_with_zero(place: Path, call: Call, tmp_path: Path) -> None:
    answer = call(*asked(place, "mixed", "-o", tmp_path / "mixed", "--json"))
    told = answer.json["judgement"]
    assert answer.code == 1 and told["level"] == "suspicious" and told["p_value"] < 1e-6
    run = Run.read(tmp_path / "mixed", "screen")
    assert run["results"] == answer.json and run["verdict"] == "suspicious"
    expected = screen(striped(), ImageSet.load(place / "mixed"), ImageSet.load(place / "known"))
    again = Screening.load(tmp_path / "mixed")
    assert again.rows() == expected.rows() and again.record.judgement == expected.record.judgement
    assert again.record.images is not None and again.record.images.sha256 == ImageSet.load(place / "mixed").hash
    rows = read_parquet(tmp_path / "mixed" / "samples.parquet")
    assert list(rows) == ["index", "label", "predicted", "score", "flag"]
    assert (rows["predicted"][150:] == TARGET).all() and rows["flag"][150:].mean() > 0.9
    assert sum(answer.json["flagged_by_decision"]) == answer.json["flagged"]
    shown = call(*asked(place, "clean", "-o", tmp_path / "clean"))
    assert shown.code == 0 and "verdict: nothing found" in shown.out


def test_rate_settings_and_seed_arrive(place: Path, call: Call, tmp_path: Path) -> None:
    more = ("--rate", "0.2", "--set", "overlays=4", "--seed", "3", "--json")
    told = call(*asked(place, "clean", *more, "-o", tmp_path / "run")).json
    images, known = ImageSet.load(place / "clean"), ImageSet.load(place / "known")
    expected = screen(striped(), images, known, false_rejection=0.2, settings={"overlays": 4}, seed=3).record
    same = ("judgement", "findings", "method", "settings", "false_rejection", "threshold", "screened", "flagged")
    assert {k: told[k] for k in same} == {k: v for k, v in expected.model_dump(mode="json").items() if k in same}


def test_triggers_of_an_inversion_run_are_used(place: Path, call: Call, tmp_path: Path) -> None:
    inverted = asked(place, "mixed", "--method", "inverted", "--json")
    answer = call(*inverted, "--triggers", place / "found", "-o", tmp_path / "a")
    assert answer.code == 1 and answer.json["triggers"]["targets"] == [TARGET]
    images, known = ImageSet.load(place / "mixed"), ImageSet.load(place / "known")
    expected = screen(striped(), images, known, "inverted", triggers={TARGET: stamp()})
    assert Screening.load(tmp_path / "a").rows() == expected.rows()
    named = call(*inverted, "--triggers", place / "silent", "--target", NAMES[TARGET], "-o", tmp_path / "b")
    assert named.json["judgement"] == answer.json["judgement"]


def test_screens_are_listed(call: Call) -> None:
    rows = {row["name"]: row for row in call("methods", "screen", "--json").json["methods"]}
    assert set(rows) == {"strip", "ada", "inverted"}
    assert rows["inverted"]["given"] == ["making", "model", "triggers"] and "weight" in rows["strip"]["settings"]


def test_mistakes_are_one_line_and_write_nothing(place: Path, call: Call, tmp_path: Path) -> None:
    def failing(match: str, *more: object, images: str = "clean") -> None:
        answer = call(*asked(place, images, *more, "-o", tmp_path / "out"))
        assert answer.code == 2 and match in answer.err and len(answer.err.strip().splitlines()) == 1, answer.err
        assert not list(tmp_path.glob("out*"))

    failing("screen inverted: needs triggers, which were not given", "--method", "inverted")
    failing("screen strip: uses no triggers", "--triggers", place / "found")
    failing("found no target class", "--method", "inverted", "--triggers", place / "silent")
    failing("expected --triggers RUN with it", "--target", "1")
    failing("no method 'smell'", "--method", "smell")
    failing("setting 'weight' = 3", "--set", "weight=3")
    failing("--rate 2.0; expected a number above 0 and below 1", "--rate", "2")
    failing("expected at least 199", "--rate", "0.005")
    failing("holds no run.json", "--method", "inverted", "--triggers", place / "known")
    (tmp_path / "small").mkdir()
    clean = ImageSet.load(place / "clean")
    ImageSet(clean.pixels[:, :5].copy(), clean.labels, clean.classes).save(tmp_path / "small")
    fitted = call(*asked(place, str(tmp_path / "small"), "-o", tmp_path / "fitted"))
    assert fitted.code in (0, 1) and "images of 5 x 12, resized to 12 x 12 and cut at the longer side" in fitted.err
    told = call(*asked(place, "known", "-o", tmp_path / "same"))
    assert "is the clean set itself" in told.err
