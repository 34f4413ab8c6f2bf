from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data import assemble, pictures
from doorward.data.sources import load_images


def refusal(source: object) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def saved(tmp_path, make):
    folder = tmp_path / "run"
    folder.mkdir()
    make().save(folder)
    return folder


def test_a_saved_set_comes_back(saved, make):
    found = load_images(saved)
    assert found.hash == make().hash
    assert (found.name, load_images(saved, name="x").name) == ("images", "x")
    assert isinstance(found.pixels, np.memmap)


def test_a_saved_set_that_was_changed_is_refused(saved):
    pixels = np.lib.format.open_memmap(saved / "images.npy", mode="r+")
    pixels[0, 0, 0, 0] ^= 1
    pixels.flush()
    assert "was not changed after it was written" in refusal(saved)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "images.json"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x05\x06" + bytes(18), b"\x93NUMPY\x01\x00\x02\x00{}", b"{}", b"[1]", b"\x80\x04N."]
)
def test_saved_sets_that_are_broken(saved, name, content):
    (saved / name).write_bytes(content)
    refusal(saved)


def test_what_a_saved_set_or_an_image_set_holds_is_checked_as_any_other(saved, make):
    images = make()
    for change, words in (
        ({"labels": np.array([0, 0, 0, 0, 0, 1])}, "has 1 image"),
        ({"labels": np.zeros(6, np.int64)}, "every image is of class"),
        ({"classes": ("a", "b\n")}, "class name"),
    ):
        replace(images, **change).save(saved)
        assert words in refusal(saved)
        assert words in refusal(replace(images, **change))


def test_class_names_of_a_saved_set_are_checked(saved):
    about = json.loads((saved / "images.json").read_text())
    for classes in (["a", "b\u0000"], ["a", "../b"], ["a", "a"], "ab", ["a"], {"a": 1}):
        (saved / "images.json").write_text(json.dumps({**about, "classes": classes}))
        refusal(saved)


@pytest.fixture
def low_limit(monkeypatch):
    monkeypatch.setattr(assemble, "MEMORY_LIMIT", 100)


def write(root, images):
    for index, (row, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        (root / images.classes[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(row).save(root / images.classes[label] / f"{index}.png")
    return root


def test_a_large_folder_is_mapped_decoded_once_and_again_after_a_change(tmp_path, make, low_limit, cache, monkeypatch):
    images = make()
    root = write(tmp_path / "set", images)
    first = load_images(root)
    assert isinstance(first.pixels, np.memmap)
    assert first.hash == images.hash
    assert len(list((cache / "decoded").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode_all", None)  # nothing is decoded
        assert load_images(root).hash == images.hash
    changed = root / "c0" / "0.png"
    before = changed.stat()
    Image.fromarray(images.pixels[0] ^ 1).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # a quiet edit: the time is set back
    assert load_images(root).hash != images.hash
    assert len(list((cache / "decoded").iterdir())) == 2


def test_a_large_manifest_with_other_labels_is_another_set(tmp_path, make, low_limit):
    root = write(tmp_path / "set", make())
    files = sorted(root.rglob("*.png"))
    for labels in ("aabbab", "bbaaba"):
        rows = "".join(f"{f.relative_to(root)},{k}\n" for f, k in zip(files, labels, strict=True))
        (root / "set.csv").write_text("path,label\n" + rows)
        found = load_images(root / "set.csv")
        assert [found.classes[k] for k in found.labels] == list(labels)


def test_a_large_set_that_fails_half_way_leaves_nothing(tmp_path, make, low_limit, cache):
    root = write(tmp_path / "set", make())
    (root / "c1" / "5.png").write_bytes(b"broken")
    refusal(root)
    assert not list((cache / "decoded").iterdir())


def test_large_arrays_npz_and_datasets_are_mapped_too(tmp_path, make, low_limit):
    images = make()
    np.savez(tmp_path / "set.npz", images=images.pixels / 255, labels=images.labels, classes=np.array(images.classes))
    data = torch.utils.data.TensorDataset(
        torch.from_numpy(images.pixels.transpose(0, 3, 1, 2).copy()), torch.from_numpy(images.labels)
    )
    for source in (tmp_path / "set.npz", (images.pixels / 255, images.labels), data):
        found = load_images(source)
        assert isinstance(found.pixels, np.memmap)
        assert np.array_equal(found.pixels, images.pixels)


def test_no_room_on_the_disk_is_told_before_anything_is_written(tmp_path, make, low_limit, cache, monkeypatch):
    root = write(tmp_path / "set", make())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 990, 10))
    assert "DOORWARD_CACHE" in refusal(root)
    assert not (cache / "decoded").exists()


def test_a_cache_that_cannot_be_written(tmp_path, make, low_limit, monkeypatch):
    root = write(tmp_path / "set", make())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOORWARD_CACHE", str(tmp_path / "file" / "below"))
    assert "cache" in refusal(root)


def test_entries_that_nobody_used_for_a_month_go(tmp_path, make, low_limit, cache):
    old = cache / "decoded" / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    load_images(write(tmp_path / "set", make()))
    assert not old.exists()
    assert len(list((cache / "decoded").iterdir())) == 1


def test_what_a_killed_process_left_goes_after_a_week(tmp_path, make, low_limit, cache):
    for name, days in ((".a.1.partial", 8), (".b.2.partial", 1)):
        (cache / "decoded" / name).mkdir(parents=True)
        then = time.time() - days * 86_400
        os.utime(cache / "decoded" / name, (then, then))
    load_images(write(tmp_path / "set", make()))
    left = {p.name for p in (cache / "decoded").iterdir()}
    assert ".b.2.partial" in left
    assert ".a.1.partial" not in left


def test_a_run_without_images_is_called_that(tmp_path):
    (tmp_path / "run.json").write_text('{"verb": "cleanse"}')
    assert "a run of 'doorward cleanse' without images" in refusal(tmp_path)


def test_saving_a_set_onto_itself_keeps_it(saved, make):
    ImageSet.load(saved).save(saved)
    ImageSet.load(saved).save(saved.parent / "run" / ".." / "run")  # the same place under another name
    assert load_images(saved).hash == make().hash
