from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet, class_number

SETS = hnp.arrays(
    np.uint8, st.tuples(st.integers(2, 12), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3]))
)


def make(pixels: np.ndarray, classes: int = 2) -> ImageSet:
    return ImageSet(pixels, np.arange(len(pixels), dtype=np.int64) % classes, tuple(f"c{k}" for k in range(classes)))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SETS)
def test_save_and_load_give_the_same_set(tmp_path_factory, pixels):
    images = replace(make(pixels), name="größe <b>", provenance={"seed": 3, "notes": ["x"]})
    folder = tmp_path_factory.mktemp("set")
    images.save(folder)
    found = ImageSet.load(folder)
    assert np.array_equal(found.pixels, pixels)
    assert np.array_equal(found.labels, images.labels)
    assert (found.classes, found.name, found.provenance) == (images.classes, images.name, images.provenance)
    assert found.hash == images.hash
    assert json.loads((folder / "images.json").read_text())["sha256"] == images.hash


def test_the_hash_is_over_shape_classes_labels_and_pixels():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
    images = ImageSet(pixels, np.array([0, 1]), ("a", "b"))
    by_hand = b'[[2, 2, 3, 1], ["a", "b"]]' + bytes(8) + b"\x01" + bytes(7) + bytes(range(12))
    assert images.hash == hashlib.sha256(by_hand).hexdigest()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(pixels=SETS, data=st.data())
def test_any_change_changes_the_hash(pixels, data):
    images = make(pixels)
    at = tuple(data.draw(st.integers(0, n - 1)) for n in pixels.shape)
    other = pixels.copy()
    other[at] ^= 1
    labels = images.labels.copy()
    labels[at[0]] ^= 1
    changes = [replace(images, pixels=other), replace(images, labels=labels), replace(images, classes=("c0", "x"))]
    if pixels.shape[1] != pixels.shape[2]:
        turned = np.ascontiguousarray(pixels).reshape(len(pixels), pixels.shape[2], pixels.shape[1], -1)
        changes.append(replace(images, pixels=turned))
    assert len({images.hash, *(c.hash for c in changes)}) == len(changes) + 1
    assert replace(images, name="other").hash == images.hash


def test_the_hash_does_not_depend_on_memory_layout():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    twice = np.repeat(pixels, 2, axis=0)[::2]
    assert make(np.asfortranarray(pixels)).hash == make(twice).hash == make(pixels).hash


def test_chunks_cover_the_set_once():
    images = make(np.zeros((10, 1, 1, 1), np.uint8))
    assert [list(range(10))[c] for c in images.chunks(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_chunks_of_large_images_are_of_fewer_rows():
    pixels = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (10, 4096, 4096, 1))  # 16 MB each, without the memory
    assert [c.stop - c.start for c in make(pixels).chunks()] == [4, 4, 2]


def test_counts_subset_and_shape():
    images = make(np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8), classes=3)
    assert images.counts().tolist() == [2, 2, 1]
    assert images.shape == (3, 2, 3)
    assert len(images) == 5
    by_mask = images.subset(np.array([True, False, True, False, False]), "part")
    assert (by_mask.labels.tolist(), by_mask.name) == ([0, 2], "part")
    assert images.subset(np.array([4, 0])).pixels[:, 0, 0, 0].tolist() == [4, 0]
    with pytest.raises(DoorwardError, match="a subset of no images"):
        images.subset(np.zeros(5, bool))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(per_class=st.integers(4, 40), share=st.sampled_from([0.1, 0.2, 0.5]), seed=st.integers(0, 9))
def test_split_is_stratified_disjoint_complete_and_repeats(per_class, share, seed):
    count = 3 * per_class
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    images = make(pixels, classes=3)
    if round(share * per_class) == 0:
        return
    first, second = images.split(share, seed)
    assert second.counts().tolist() == [round(share * per_class)] * 3
    assert sorted([*first.pixels.ravel(), *second.pixels.ravel()]) == sorted(pixels.ravel())
    assert images.split(share, seed)[1].hash == second.hash


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": np.zeros((4, 2, 2, 3), np.float32)}, "float32"),
        ({"pixels": np.zeros((4, 2, 2), np.uint8)}, "[4, 2, 2]"),
        ({"pixels": np.zeros((4, 2, 2, 4), np.uint8)}, "4 channels"),
        ({"pixels": np.zeros((0, 2, 2, 3), np.uint8)}, "no images"),
        ({"pixels": np.zeros((4, 0, 2, 3), np.uint8)}, "0 x 2"),
        ({"labels": np.zeros(5, np.int64)}, "one per image"),
        ({"labels": np.zeros(4, np.int32)}, "int32"),
        ({"labels": np.array([0, 0, 1, 2])}, "label 2"),
        ({"labels": np.array([0, 0, 1, -1])}, "label -1"),
        ({"classes": ("a",)}, "at least two classes"),
    ],
)
def test_sets_that_do_not_fit_together(change, words):
    with pytest.raises(DoorwardError) as caught:
        replace(make(np.zeros((4, 2, 2, 3), np.uint8)), **change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "images.json"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\x80\x04N.", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x04\x00(((\n", b"[]", b"{}"]
)
def test_load_of_a_broken_set_is_one_line(tmp_path, name, content):
    make(np.zeros((4, 2, 2, 3), np.uint8)).save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DoorwardError) as caught:
        ImageSet.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_saved_memory_map_keeps_its_own_file(tmp_path):
    images = make(np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8))
    images.save(tmp_path)
    again = ImageSet.load(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    again.save(tmp_path / "link")
    assert ImageSet.load(tmp_path).hash == images.hash


def test_a_class_is_found_by_name_first_and_then_by_number():
    digits = ("1", "7")
    assert class_number("7", digits) == 1 and class_number("0", digits) == 0, "text: a name, else a number"
    assert class_number(1, digits) == 1 and class_number(np.int64(0), digits) == 0, "a number is a number"
    for wrong in ("8", "x", "-1", "1.0", -1, 2, 1.0, True, None, "²"):
        with pytest.raises(DoorwardError, match=r"target .*; expected one of 1, 7 or 0\.\.1"):
            class_number(wrong, digits, "target")


def test_a_portion_keeps_every_class(digits: tuple[ImageSet, ImageSet]) -> None:
    whole = digits[0]
    some = whole.portion(0.1, 3)
    assert some.counts().tolist() == [40] * 10 and (some.hash == whole.portion(0.1, 3).hash)
    assert some.hash != whole.portion(0.1, 4).hash and whole.portion(1.0, 0) is whole
    assert whole.portion(1e-6, 0).counts().tolist() == [1] * 10
