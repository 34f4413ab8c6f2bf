"""From a folder of pictures to the suspects by name, and the folder without them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from doorward.attacks.attack import attack
from doorward.cleansers.results import Cleansing
from doorward.core.images import ImageSet
from doorward.data.export import export_images
from doorward.data.sources import load_images
from tests.cli.conftest import Call
from tests.light import lighten

METHODS = ("impurity", "activation", "spectral", "scan", "transfer")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, digits: tuple[ImageSet, ImageSet]) -> tuple[Path, set[str]]:
    """A folder of PNG files, one subfolder a class, and the names of the poisoned ones."""
    place = tmp_path_factory.mktemp("own")
    poisoned = attack(digits[0].portion(0.5, 3), "patch", rate=0.03, seed=3)
    export_images(poisoned.images, place / "photos", "folder")
    written = load_images(place / "photos")
    names = {image.tobytes(): name for image, name in zip(written.pixels, written.ids, strict=True)}
    return place / "photos", {names[p.tobytes()] for p in poisoned.images.pixels[poisoned.truth.poisoned]}


def test_suspects_have_file_names_and_the_rest_is_exported(
    photos: tuple[Path, set[str]], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lighten(monkeypatch)
    folder, truth = photos
    training = ("--set", "epochs=8", "--set", "batch=32", "--set", "lr=0.05", "--seed", 3)
    assert call("train", folder, *training, "-o", tmp_path / "model").code == 0
    assert call("cleanse", folder, "--model", tmp_path / "model", "-o", tmp_path / "run").code == 1
    with (tmp_path / "run" / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "class", "predicted", "methods", *(f"{m}_score" for m in METHODS)]
    named = {row["id"] for row in rows}
    assert len(named & truth) >= 0.9 * len(truth) and len(named - truth) <= 0.05 * len(truth) + 2
    assert all((folder / row["id"]).is_file() and row["class"] == "0" for row in rows)
    found = Cleansing.load(tmp_path / "run")
    assert set(found.suspects()) == named
    assert len(found.cleaned(load_images(folder))) == len(found.samples.label) - len(named)
    report = ("report", tmp_path / "run", "-o", tmp_path / "r.html", "--sarif", tmp_path / "r.sarif")
    assert call(*report).code == 1
    results = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["results"]
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results if r["kind"] == "fail"]
    assert places and set(places) <= named
    kept = call("export", tmp_path / "run", "--keep", "-o", tmp_path / "clean")
    assert kept.code == 0 and f"{len(named):,} suspects left out" in kept.out
    assert set(load_images(tmp_path / "clean").ids) == set(load_images(folder).ids) - named
    assert call("export", tmp_path / "run", "--suspects", "--format", "ids", "-o", tmp_path / "ids.txt").code == 0
    assert set((tmp_path / "ids.txt").read_text().split("\n")) - {""} == named
    refused = call("export", tmp_path / "run", "-o", tmp_path / "clean")
    assert refused.code == 2 and "exists already" in refused.err
