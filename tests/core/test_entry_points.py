"""Methods of other packages: an installed distribution with an entry point is found, listed and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from doorward.core.images import ImageSet
from doorward.core.tables import read_parquet
from doorward.models.files import save_classifier
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from tests.conftest import make_images

MODULE = '''
import numpy as np
from doorward.cleansers.suspicion import Suspicion
from doorward.core.methods import Settings, method


class DarkSettings(Settings):
    below: int = 40


@method("cleanse", "darkest", settings=DarkSettings, given={"pixels", "labels"})
def darkest(pixels, labels, s):
    """Flag images that are darker than a level.

    Fails when: poison is bright.
    """
    mean = pixels.mean(axis=(1, 2, 3))
    return Suspicion((-mean).astype(np.float32), mean < s.below)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package as pip leaves it on disk, images, and a model of them."""
    folder = tmp_path_factory.mktemp("plugin")
    site = folder / "site"
    about = site / "doorward_darkest-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "doorward_darkest.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: doorward-darkest\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[doorward.cleanse]\ndarkest = doorward_darkest\n")
    images = make_images(60)
    for name in ("images", "model"):
        (folder / name).mkdir()
    images.save(folder / "images")
    save_classifier(train(images, "two-layer", TrainSettings(epochs=1, batch=16)), folder / "model")
    return folder


def doorward(place: Path, *arguments: object, installed: bool = True) -> subprocess.CompletedProcess[str]:
    paths = [str(place / "site")] if installed else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *filter(None, sys.path)])}
    command = [sys.executable, "-m", "doorward", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_an_installed_package_adds_a_cleanser(place: Path) -> None:
    listed = doorward(place, "methods", "cleanse", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout)["methods"]}
    assert {"spectral", "darkest"} <= set(rows) and rows["darkest"]["given"] == ["labels", "pixels"]
    assert rows["darkest"]["summary"] == "Flag images that are darker than a level."
    asked = ("cleanse", place / "images", "--model", place / "model", "--method", "darkest", "-o", place / "run")
    ran = doorward(place, *asked, "--set", "darkest.below=50")
    assert ran.returncode == 3 and "undecided" in ran.stdout, ran.stderr  # it gives no number per class to test
    flags = read_parquet(place / "run" / "samples.parquet")["darkest_flag"]
    expected = ImageSet.load(place / "images").pixels.mean(axis=(1, 2, 3)) < 50
    assert (flags == expected).all() and 0 < expected.sum() < len(expected)


def test_without_the_package_there_is_no_such_cleanser(place: Path) -> None:
    asked = ("cleanse", place / "images", "--model", place / "model", "--method", "darkest", "-o", place / "none")
    ran = doorward(place, *asked, installed=False)
    assert ran.returncode == 2 and "no method 'darkest'; expected one of" in ran.stderr
