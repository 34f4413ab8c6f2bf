from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from doorward.attacks.attack import attack
from doorward.core.errors import DoorwardError
from doorward.core.ids import Ids, distinct
from doorward.core.images import ImageSet
from doorward.data.sources import load_images
from doorward.data.summary import describe

NAMES = ("dog/b c.png", "dog/ünï.png", "cat/a.png", "cat/x\n.png")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=12), st.data())
def test_names_behave_as_a_list_does(tmp_path_factory, names, data):
    ids = Ids(names)
    as_text = [n.encode("utf-8", "backslashreplace").decode() for n in names]
    assert list(ids) == as_text == ids and len(ids) == len(names) and ids[-1] == as_text[-1]
    rows = np.array(data.draw(st.lists(st.integers(0, len(names) - 1), max_size=6)), np.int64)
    assert list(ids.take(rows)) == [as_text[i] for i in rows] and ids[1:3] == as_text[1:3]
    path = tmp_path_factory.mktemp("ids") / "ids.jsonl"
    ids.save(path)
    assert list(Ids.load(path, len(names))) == as_text == list(pickle.loads(pickle.dumps(ids)))
    with pytest.raises(ValueError):
        Ids.load(path, len(names) + 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["a", "a#2", "a#3", "b"]), max_size=8))
def test_distinct_names_keep_the_first_and_are_all_different(names):
    found = distinct(names)
    assert len(set(found)) == len(names)
    assert all(new == old or new.startswith(f"{old}#") for new, old in zip(found, names, strict=True))
    assert all(found[names.index(name)] == name for name in names)


def test_files_are_named_by_their_path_and_the_hash_knows_nothing_of_it(photos, tmp_path):
    found = load_images(photos)
    assert list(found.ids) == ["cat/a.png", "cat/x\n.png", "dog/b c.png", "dog/ünï.png"]
    assert found.image_id(2) == "dog/b c.png" and found.provenance["root"] == str(photos)
    assert found.hash == replace(found, ids=()).hash and list(replace(found, ids=()).ids) == list("0123")
    (tmp_path / "saved").mkdir()
    found.save(tmp_path / "saved")
    again = load_images(tmp_path / "saved")
    assert list(again.ids) == list(found.ids) and again.hash == found.hash
    assert "root" not in again.provenance, "a path in a file of anyone's is not followed"
    replace(found, ids=()).save(tmp_path / "saved")
    assert list(load_images(tmp_path / "saved").ids) == list("0123"), "no names of an earlier set stay"


@pytest.mark.parametrize("content", ["", '"a"\n' * 3, "1\n" * 4, "x\n" * 4, f'"{"x" * 5000}"\n' * 4, "[" * 99_999])
def test_broken_names_of_a_saved_set(photos, tmp_path, content):
    load_images(photos).save(tmp_path)
    (tmp_path / "ids.jsonl").write_text(content)
    with pytest.raises(DoorwardError) as caught:
        load_images(tmp_path)
    assert "\n" not in str(caught.value)


def test_splits_and_archives_are_named_from_where_they_were_given(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "both" / "train")
    shutil.copytree(photos, tmp_path / "both" / "test")
    assert load_images(tmp_path / "both", split="test").image_id(0) == "test/cat/a.png"
    shutil.make_archive(str(tmp_path / "set"), "tar", tmp_path, "photos")
    found = load_images(tmp_path / "set.tar")
    assert found.image_id(0) == "photos/cat/a.png" and found.hash == load_images(photos).hash


def test_file_names_that_are_no_text(photos):
    (photos / "cat" / "a.png").rename(os.fsdecode(os.fsencode(photos / "cat") + b"/\xff.png"))
    assert "cat/\\udcff.png" in list(load_images(photos).ids)


def test_ids_go_with_their_images(photos):
    found = load_images(photos)
    assert list(found.subset(np.array([3, 0])).ids) == ["dog/ünï.png", "cat/a.png"]
    assert list(found.subset(np.array([False, True, False, True])).ids) == ["cat/x\n.png", "dog/ünï.png"]
    first, second = found.split(0.5, 0)
    for part in (first, second, found.portion(0.5, 1), found.coloured()):
        for name, pixels in zip(part.ids, part.pixels, strict=True):
            assert np.array_equal(pixels, found.pixels[list(found.ids).index(name)])
    plain = ImageSet(found.pixels, found.labels, found.classes)
    assert list(plain.subset(np.array([3, 1])).subset(np.array([1])).ids) == ["1"], "the index in the first set"
    with pytest.raises(DoorwardError, match="3 ids; expected 4, one per image"):
        replace(found, ids=("a", "b", "c"))


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_ids_survive_an_attack_and_tell_nothing(photos, mode):
    found = load_images(photos)
    poisoned = attack(found, "patch", target=0, count=1, mode=mode, seed=1)
    names = list(poisoned.images.ids)
    if mode == "replace":
        assert names == list(found.ids)
        return
    assert len(names) == 5 == len(set(names))
    for name, row in zip(names, poisoned.truth.source_index, strict=True):
        assert name.removesuffix("#2") == found.image_id(int(row))
    plain = attack(replace(found, ids=()), "patch", target=0, count=1, mode=mode, seed=1)
    assert list(plain.images.ids) == list("01234")


def test_a_path_that_comes_twice_in_a_manifest(photos):
    (photos / "set.csv").write_text("path,label\ndog/b c.png,a\ncat/a.png,b\ndog/b c.png,b\ncat/a.png,a\n")
    found = load_images(photos / "set.csv")
    assert list(found.ids) == ["dog/b c.png", "cat/a.png", "dog/b c.png#2", "cat/a.png#2"]
    assert describe(found)["duplicates"]["ids"] == [["dog/b c.png", "dog/b c.png#2"], ["cat/a.png", "cat/a.png#2"]]


def test_a_million_names_take_little_memory():
    ids = Ids(f"class-{i % 100:03d}/IMG_{i:07d}.jpg" for i in range(100_000))
    assert len(pickle.dumps(ids)) < 100_000 * 60 and ids[99_999].endswith("0099999.jpg")
