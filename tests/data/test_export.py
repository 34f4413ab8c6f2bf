from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from doorward.cli.data import app
from doorward.core.errors import DoorwardError
from doorward.data import export
from doorward.data.export import export_images
from doorward.data.sources import load_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(8):
        path = tmp_path / "photos" / "ab"[index % 2] / ("deep" if index == 4 else ".") / f"IMG {index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def where(format: str, target: Path) -> Path:
    return target / "images.csv" if format == "csv" else target


@pytest.mark.parametrize("format", ["folder", "csv", "parquet", "npz"])
@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_exported_is_the_same_set(photos, tmp_path, make, format, files, channels):
    images = load_images(photos) if files else replace(make(per_class=13, channels=channels), classes=("ape", "zebra"))
    target = tmp_path / ("out.npz" if format == "npz" else "out")
    assert export_images(images, target, format) == target
    found = load_images(where(format, target))
    assert found.hash == images.hash
    if files and format != "csv":
        assert list(found.ids) == list(images.ids)
    assert not list(tmp_path.glob("*.partial"))


def test_a_part_of_a_folder_keeps_its_files_bit_by_bit_whatever_size_they_were_read_in(photos, tmp_path):
    kept = load_images(photos, size=4).subset(np.array([0, 2, 3, 5, 6]))
    export_images(kept, tmp_path / "clean")
    files = sorted(p.relative_to(tmp_path / "clean").as_posix() for p in (tmp_path / "clean").rglob("*.png"))
    assert files == sorted(kept.ids)
    assert all((tmp_path / "clean" / name).read_bytes() == (photos / name).read_bytes() for name in files)
    assert not (tmp_path / "clean" / files[0]).samefile(photos / files[0])
    export_images(kept, tmp_path / "linked", link=True)
    assert (tmp_path / "linked" / files[0]).samefile(photos / files[0])


def test_names_only(photos, tmp_path):
    export_images(load_images(photos), tmp_path / "names.txt", "ids")
    assert (tmp_path / "names.txt").read_text().split("\n")[:2] == ["a/IMG 0.png", "a/IMG 2.png"]


def test_parquet_comes_in_parts_that_hold_the_names_of_the_classes(make, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_PART_BYTES", 300)
    images = replace(make(per_class=5), classes=("zebra's", "ape"), ids=tuple(f"n{i}" for i in range(10)))
    export_images(images, tmp_path / "out", "parquet")
    parts = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert len(parts) > 2 and parts[0] == f"train-00000-of-{len(parts):05d}.parquet"
    found = load_images(tmp_path / "out")
    assert found.hash == images.hash and found.classes == images.classes and list(found.ids) == list(images.ids)


def test_archives_manifests_and_saved_sets(photos, tmp_path):
    import shutil

    shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "photos")
    zipped = load_images(tmp_path / "set.zip")
    export_images(zipped, tmp_path / "from-zip")
    assert load_images(tmp_path / "from-zip").hash == zipped.hash
    rows = "".join(
        f"{p.relative_to(photos)},{k}\n" for p, k in zip(sorted(photos.rglob("*.png")), "xyxyxyxx", strict=True)
    )
    (photos / "set.csv").write_text("path,label\n" + rows + "a/IMG 0.png,y\n")
    listed = load_images(photos / "set.csv")
    export_images(listed, tmp_path / "from-csv", "csv")
    assert load_images(tmp_path / "from-csv" / "images.csv").hash == listed.hash
    assert sorted(p.name for p in (tmp_path / "from-csv").iterdir()) == ["images.csv", "x", "y"]
    (tmp_path / "saved").mkdir()
    load_images(photos).save(tmp_path / "saved")
    saved = load_images(tmp_path / "saved")
    export_images(saved, tmp_path / "named", source=photos)
    assert (tmp_path / "named" / "a" / "IMG 0.png").read_bytes() == (photos / "a" / "IMG 0.png").read_bytes()
    export_images(saved, tmp_path / "drawn")
    assert load_images(tmp_path / "drawn").hash == saved.hash


def refusal(images, target, *rest, **more) -> str:
    with pytest.raises(DoorwardError) as caught:
        export_images(images, target, *rest, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_is_replaced_and_a_failure_leaves_nothing(photos, tmp_path, make):
    images = load_images(photos)
    (tmp_path / "there").mkdir()
    assert "exists already" in refusal(images, tmp_path / "there")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "exists already" in refusal(images, tmp_path / "dangling", "ids")
    (tmp_path / "new.partial").write_text("mine")
    assert "new.partial: exists already" in refusal(images, tmp_path / "new")
    assert (tmp_path / "new.partial").read_text() == "mine"
    assert "expected one of folder, csv" in refusal(images, tmp_path / "x", "zip")
    (photos / "b" / "IMG 7.png").unlink()
    assert "holds no b/IMG 7.png" in refusal(images, tmp_path / "x")
    assert "no folder" in refusal(images, tmp_path / "x", source=tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "file: cannot be made" in refusal(images, tmp_path / "file" / "x")
    assert "leading dot" in refusal(replace(make(), classes=("..", "a")), tmp_path / "x")
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.partial").exists()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/link.png", "a/notes.txt"])
def test_names_of_anyone_lead_nowhere(photos, tmp_path, name):
    images = load_images(photos).subset(np.arange(2))
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    (photos / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    (photos / "a" / "notes.txt").write_text("x")
    told = refusal(replace(images, ids=(name, "a/IMG 0.png")), tmp_path / "out", source=photos)
    assert "not an image inside" in told or "holds no" in told
    assert not (tmp_path / "out").exists()


def test_the_command(photos, tmp_path):
    runner = CliRunner()
    done = runner.invoke(app, ["export", str(photos), "--size", "4", "--format", "npz", "-o", str(tmp_path / "x.npz")])
    assert done.exit_code == 0 and "8 images are in" in done.output
    assert load_images(tmp_path / "x.npz").shape == (3, 4, 4)
    (photos / "a" / "IMG 0.png").write_bytes(b"x")
    told = runner.invoke(app, ["describe", str(photos), "--size", "4", "--skip-bad"]).output
    assert "converted: resized, 7 of 7 pictures" in told and "left out: a/IMG 0.png" in told
    found = json.loads(runner.invoke(app, ["describe", str(photos), "--size", "4", "--skip-bad", "--json"]).stdout)
    assert found["converted"] == {"resized": 7} and list(found["skipped"]) == ["a/IMG 0.png"]
