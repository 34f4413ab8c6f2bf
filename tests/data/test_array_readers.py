from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.data.sources import load_images

PIXELS = hnp.arrays(
    np.uint8, st.tuples(st.integers(4, 8), st.integers(4, 9), st.integers(4, 9), st.sampled_from([1, 3]))
)


def labels_for(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64) % 2


def refusal(source: object, **options: str) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def layouts(pixels: np.ndarray) -> list[np.ndarray]:
    """The same images in every form that is accepted."""
    found = [pixels, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), np.asfortranarray(pixels)]
    found += [pixels[..., 0]] if pixels.shape[3] == 1 else []
    found += [pixels.astype(np.int32), (pixels / 255).astype(np.float32), pixels / 255, (pixels / 255).astype(">f4")]
    return found


@settings(max_examples=15, deadline=None, derandomize=True)
@given(PIXELS)
def test_every_layout_and_type_is_the_same_set(pixels):
    labels = labels_for(len(pixels))
    for form in layouts(pixels):
        found = load_images((form, labels))
        assert np.array_equal(found.pixels, pixels)
        assert found.pixels.dtype == np.uint8
        assert np.array_equal(found.labels, labels)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    pixels=PIXELS,
    keys=st.sampled_from([("images", "labels"), ("x", "y"), ("x_train", "y_train")]),
    packed=st.booleans(),
)
def test_npz_round_trip(tmp_path_factory, pixels, keys, packed):
    labels = labels_for(len(pixels))
    path = tmp_path_factory.mktemp("npz") / "set.npz"
    for form in layouts(pixels):
        (np.savez_compressed if packed else np.savez)(path, **{keys[0]: form, keys[1]: labels[:, None]})
        found = load_images(path)
        assert np.array_equal(found.pixels, pixels)
        assert np.array_equal(found.labels, labels)
        assert found.name == "set"


def test_npz_splits_and_class_names(tmp_path):
    path = tmp_path / "set.npz"
    zeros, ones = np.zeros((4, 5, 5), np.uint8), np.ones((6, 5, 5), np.uint8)
    np.savez(
        path, x_train=zeros, y_train=labels_for(4), x_test=ones, y_test=labels_for(6), classes=np.array(["b", "a"])
    )
    assert (load_images(path).pixels == 0).all()
    test = load_images(path, split="test", name="mine")
    assert (len(test), test.classes, test.name) == (6, ("b", "a"), "mine")
    np.savez(path, images=zeros, labels=labels_for(4))
    assert "no test images" in refusal(path, split="test")


def test_text_labels_become_classes_in_order(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, images=np.zeros((4, 5, 5), np.uint8), labels=np.array(["dog", "cat", "dog", "cat"]))
    found = load_images(path)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [1, 0, 1, 0]


def test_integer_labels_keep_their_numbers():
    found = load_images((np.zeros((4, 5, 5), np.uint8), np.array([1, 3, 1, 3], np.uint8)))
    assert found.labels.tolist() == [1, 3, 1, 3]
    assert found.classes == ("0", "1", "2", "3")


def test_floats_are_rounded_to_the_nearest_of_256_levels():
    values = np.array([0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1.0])
    images = np.broadcast_to(values, (4, 6, 6))
    assert load_images((images, labels_for(4))).pixels[0, 0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


def test_uint8_arrays_are_not_copied():
    pixels = np.zeros((4, 5, 5, 3), np.uint8)
    assert np.shares_memory(load_images((pixels, labels_for(4))).pixels, pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_are_channels_first(dtype):
    grid = torch.tensor([0.0, 1.0])[torch.randint(0, 2, (4, 3, 5, 3), generator=torch.Generator().manual_seed(0))]
    found = load_images((grid.to(dtype), torch.arange(4) % 2))
    assert np.array_equal(found.pixels, grid.mul(255).byte().permute(0, 2, 3, 1).numpy())
    assert torch.equal(to_float(found.pixels), grid)


def test_a_shape_that_can_be_read_both_ways_follows_the_custom():
    both = np.zeros((4, 3, 7, 3), np.uint8)
    assert load_images((both, labels_for(4))).shape == (3, 3, 7)
    assert load_images((torch.from_numpy(both), torch.arange(4) % 2)).shape == (3, 7, 3)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.full((4, 2, 2), np.nan), labels_for(4), "NaN"),
        (np.array([[[np.inf]]] * 4), labels_for(4), "NaN or infinite"),
        (np.full((4, 2, 2), 1.01), labels_for(4), "a pixel of 1.01"),
        (np.full((4, 2, 2), -0.01), labels_for(4), "a pixel of -0.01"),
        (np.full((4, 2, 2), 256), labels_for(4), "a pixel of 256"),
        (np.full((4, 2, 2), -1), labels_for(4), "a pixel of -1"),
        (np.zeros((4, 2, 2), bool), labels_for(4), "type bool"),
        (np.zeros((4, 2, 2), complex), labels_for(4), "type complex128"),
        (np.zeros((4, 2, 2), object), labels_for(4), "Python objects"),
        (np.zeros((4, 5, 5, 2), np.uint8), labels_for(4), "shape [4, 5, 5, 2]"),
        (np.zeros((4, 5), np.uint8), labels_for(4), "shape [4, 5]"),
        (np.zeros((0, 5, 5), np.uint8), labels_for(0), "no images"),
        (np.zeros((4, 0, 5), np.uint8), labels_for(4), "0"),
        (np.zeros((4, 5, 5), np.uint8), labels_for(5), "labels of shape [5] for 4 images"),
        (np.zeros((4, 5, 5), np.uint8), np.zeros((4, 2), int), "labels of shape [4, 2]"),
        (np.zeros((4, 5, 5), np.uint8), np.zeros(4), "labels of type float64"),
        (np.zeros((4, 5, 5), np.uint8), np.array([0, 0, -1, -1]), "label -1"),
        (np.zeros((4, 5, 5), np.uint8), np.array([0, 0, 10**9, 10**9]), "label 1000000000"),
        (np.zeros((4, 5, 5), np.uint8), np.zeros(4, int), "at least two classes"),
        (np.zeros((4, 5, 5), np.uint8), np.ones(4, int), "every image is of class '1'"),
        (np.zeros((4, 5, 5), np.uint8), np.array([0, 0, 0, 1]), "has 1 image"),
    ],
)
def test_arrays_that_are_refused(tmp_path, images, labels, words):
    assert words in refusal((images, labels))
    if images.dtype != object:
        np.savez(tmp_path / "set.npz", images=images, labels=labels)
        assert words in refusal(tmp_path / "set.npz")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_inside_npz_are_never_read(tmp_path):
    trace = tmp_path / "executed"
    good = np.zeros((4, 5, 5), np.uint8)
    np.savez(tmp_path / "objects.npz", images=good, labels=np.array([Evil(trace)] * 4, dtype=object))
    assert "Python objects (a pickle), which are never read" in refusal(tmp_path / "objects.npz")
    for member in ("images.npy", "labels.npy"):
        np.savez(tmp_path / "raw.npz", **{"images" if member[0] == "l" else "labels": good})
        with zipfile.ZipFile(tmp_path / "raw.npz", "a") as archive:
            archive.writestr(member, pickle.dumps(Evil(trace)))
        assert "expected a NumPy array" in refusal(tmp_path / "raw.npz") or member[0] == "i"
        refusal(tmp_path / "raw.npz")
    (tmp_path / "whole.npz").write_bytes(pickle.dumps(Evil(trace)))
    refusal(tmp_path / "whole.npz")
    assert not trace.exists()


def header_only(shape: tuple[int, ...], body: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + body


@pytest.mark.parametrize("shape", [(10**6, 10**3, 10**3), (4, 5, 6), (4, 5, 4), (2**40, 2**40, 2**40)])
def test_a_header_that_promises_other_sizes_is_refused_before_anything_is_allocated(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header_only(shape, bytes(100)))
        archive.writestr("labels.npy", header_only((4,), bytes([0, 0, 1, 1])))
    assert "expected" in refusal(tmp_path / "set.npz")


@pytest.mark.parametrize("packed", [False, True])
def test_a_flipped_byte_is_found_by_the_checksum(tmp_path, packed):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("labels.npy", header_only((4,), bytes([0, 0, 1, 1])))
        archive.writestr("images.npy", header_only((4, 5, 5), bytes([77] * 100)))
        right = archive.getinfo("images.npy").CRC.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(right, b"\1\2\3\4"))
    assert "CRC" in refusal(path)


def test_npz_with_other_names_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "set.npz", pictures=np.zeros(3), targets=np.zeros(3))
    assert "arrays pictures, targets; expected images and labels" in refusal(tmp_path / "set.npz")


class Items:
    """A map-style dataset."""

    def __init__(self, items: list, classes: list[str] | None = None) -> None:
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.items[index]


@pytest.mark.parametrize(
    "form",
    [
        Image.fromarray,
        lambda a: a,
        lambda a: a / 255,
        lambda a: torch.from_numpy(a).permute(2, 0, 1),
        lambda a: torch.from_numpy(a).permute(2, 0, 1).float() / 255,
    ],
)
@pytest.mark.parametrize("label", [int, np.int32, torch.tensor])
def test_map_style_datasets(make, form, label):
    images = make()
    items = [(form(row), label(k)) for row, k in zip(images.pixels, images.labels.tolist(), strict=True)]
    found = load_images(Items(items, list(images.classes)))
    assert found.hash == images.hash
    assert found.name == "images"


def test_torch_datasets(make):
    images = make()
    dataset = torch.utils.data.TensorDataset(to_float(images.pixels), torch.from_numpy(images.labels))
    assert np.array_equal(load_images(dataset).pixels, images.pixels)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "holds no items"),
        ([np.zeros((3, 3))] * 4, "item 0"),
        ([(np.zeros((3, 3)), 0.5)] * 4, "item 0"),
        ([(np.zeros((3, 3)), 0), (np.zeros((3, 4)), 0)], "item 1 has shape [3, 4, 1], but item 0"),
        ([(np.zeros((3, 3)), 0), (np.full((3, 3), np.nan), 0)], "item 1: pixels that are NaN"),
        ([(np.full((3, 3), -2.1), 0)] * 4, "item 0: a pixel of -2.1"),
        ([(Image.new("RGBA", (3, 3)), 0)] * 4, "mode RGBA"),
        ([(np.zeros(3), 0)] * 4, "an image of shape [3]"),
        ([(np.zeros((3, 3)), 0)] * 4, "at least two classes"),
    ],
)
def test_datasets_that_are_refused(items, words):
    assert words in refusal(Items(items))


@pytest.mark.parametrize("source", [None, 3, b"bytes", {"a": 1}, (1, 2, 3), np.zeros(3), [np.zeros(2)]])
def test_other_python_objects_are_refused(source):
    refusal(source)
    refusal(source, split="test")


def test_an_image_set_is_taken_as_it_is(make):
    images = make()
    found = load_images(images, name="other")
    assert isinstance(found, ImageSet)
    assert (found.hash, found.name) == (images.hash, "other")
