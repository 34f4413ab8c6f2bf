from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data.sources import load_images

BLACK = np.zeros((4, 6, 3), np.uint8)


def write(root: Path, images: ImageSet, ending: str = "png") -> Path:
    for index, (row, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        folder = root / images.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row.squeeze(-1) if row.shape[-1] == 1 else row).save(folder / f"{index:03d}.{ending}")
    return root


def put(path: Path, array: np.ndarray = BLACK, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        put(tmp_path / "set" / name)
    return tmp_path / "set"


def refusal(source: Path, **options: str) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pixels=hnp.arrays(
        np.uint8, st.tuples(st.integers(4, 9), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
    ),
    ending=st.sampled_from(["png", "bmp", "PNG"]),
)
def test_lossless_formats_come_back_bit_by_bit(tmp_path_factory, pixels, ending):
    labels = np.sort(np.arange(len(pixels)) % 2).astype(np.int64)
    images = ImageSet(pixels, labels, ("cats <b>", "dogs"))
    found = load_images(write(tmp_path_factory.mktemp("set"), images, ending))
    assert np.array_equal(found.pixels, pixels)
    assert np.array_equal(found.labels, labels)
    assert found.classes == images.classes
    assert found.hash == images.hash


def test_classes_and_files_are_in_order_of_name_and_deep_files_are_found(tmp_path):
    for value, name in enumerate(["10/b.png", "10/a/z.png", "2/0.png", "2/1.png"]):
        put(tmp_path / name, np.full((2, 2), value, np.uint8))
    found = load_images(tmp_path)
    assert found.classes == ("10", "2")  # by name, as torchvision's ImageFolder
    assert found.pixels[:, 0, 0, 0].tolist() == [1, 0, 2, 3]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.shape == (1, 2, 2)


def test_train_and_test_folders(tmp_path):
    for split, value in (("train", 1), ("test", 2)):
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            put(tmp_path / split / name, np.full((2, 2), value, np.uint8))
    assert (load_images(tmp_path).pixels == 1).all()
    assert (load_images(tmp_path, split="test").pixels == 2).all()
    assert load_images(tmp_path, split="test").name == f"{tmp_path.name}-test"


def test_classes_that_are_called_train_and_test(tmp_path):
    for name in ("train/0.png", "train/1.png", "test/0.png", "test/1.png"):
        put(tmp_path / name)
    assert load_images(tmp_path).classes == ("test", "train")


def test_hidden_files_are_ignored_and_others_noted(two_classes):
    (two_classes / "a" / ".DS_Store").write_bytes(b"x")
    (two_classes / ".git").mkdir()
    (two_classes / "b" / "notes.txt").write_text("x")
    (two_classes / "README").write_text("x")
    found = load_images(two_classes)
    assert len(found) == 4
    assert found.provenance["notes"] == ["1 file(s) without an image ending were left out, first b/notes.txt"]


def test_bad_files_are_listed_in_order(tmp_path):
    for index in range(40):
        put(tmp_path / "ab"[index % 2] / f"{index:03d}.png", np.zeros((4, 4), np.uint8))
    for name in ("a/020.png", "a/010.png", "b/011.png"):
        (tmp_path / name).write_bytes(b"broken")
    why = "(not an image of these formats)"
    assert f"3 files cannot be read: a/010.png {why}, a/020.png {why}, b/011.png {why}; " in refusal(tmp_path)
    for index in range(0, 40, 2):
        (tmp_path / "a" / f"{index:03d}.png").write_bytes(b"broken")
    message = refusal(tmp_path)
    assert "21 files" in message and "a/018.png" in message and "a/020.png" not in message and "and 11 more" in message


@pytest.mark.parametrize("keep", [0, 10, 40, -40])
def test_truncated_images(two_classes, keep):
    path = put(two_classes / "b" / "1.png", np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:keep])
    assert "b/1.png" in refusal(two_classes)


def test_truncated_jpeg_is_refused_even_if_the_program_allows_them(two_classes, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"):
        path = put(two_classes.parent / "jpeg" / name, noise)
    path.write_bytes(path.read_bytes()[:-600])
    assert "b/1.jpg" in refusal(two_classes.parent / "jpeg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # the program's own choice is put back


def test_a_tiff_that_is_called_png(two_classes):
    Image.fromarray(BLACK).save(two_classes / "a" / "0.png", format="TIFF")
    assert "a/0.png: not an image of these formats" in refusal(two_classes)


@pytest.mark.parametrize("side", [8_001, 10_000, 13_400])
def test_bombs(two_classes, side):
    """More than 64 million pixels, and the sizes where Pillow warns and where it refuses by itself."""
    Image.new("1", (side, side)).save(two_classes / "a" / "0.png")
    message = refusal(two_classes)
    assert "a/0.png" in message
    assert "pixels" in message


def test_links_that_leave_the_folder(two_classes):
    outside = put(two_classes.parent / "secret.png")
    (two_classes / "a" / "0.png").unlink()
    (two_classes / "a" / "0.png").symlink_to(outside)
    assert "leaves" in refusal(two_classes)
    (two_classes / "a" / "0.png").unlink()
    (two_classes / "a" / "0.png").symlink_to(two_classes / "a" / "1.png")
    assert len(load_images(two_classes)) == 4
    (two_classes / "c").symlink_to(two_classes / "b")
    assert "symbolic link to a folder" in refusal(two_classes)


def test_the_folder_itself_may_be_a_link(two_classes):
    (two_classes.parent / "link").symlink_to(two_classes)
    assert len(load_images(two_classes.parent / "link")) == 4


def test_a_pipe_is_not_waited_for(two_classes):
    os.mkfifo(two_classes / "a" / "2.png")
    assert "not a regular file" in refusal(two_classes)


def test_missing_empty_one_class_one_image(tmp_path, two_classes):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "an empty folder" in refusal(tmp_path / "empty")
    put(tmp_path / "one" / "a" / "0.png")
    put(tmp_path / "one" / "a" / "1.png")
    assert "at least two classes" in refusal(tmp_path / "one")
    put(tmp_path / "one" / "b" / "0.png")
    assert "class 'b' has 1 image" in refusal(tmp_path / "one")
    (two_classes / "c").mkdir()
    assert "c: holds no images" in refusal(two_classes)
    put(tmp_path / "flat" / "0.png")
    assert "class folders" in refusal(tmp_path / "flat")
    assert "expected split 'train'" in refusal(tmp_path / "one", split="test")
    assert "expected train or test" in refusal(tmp_path / "one", split="all")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\\b", "x" * 101, "a\u202egnp", " ", "a\u2028b"])
def test_class_names_that_are_refused(tmp_path, name):
    for folder in (name, "fine"):
        put(tmp_path / folder / "0.png")
        put(tmp_path / folder / "1.png")
    message = refusal(tmp_path)
    assert "class name" in message
    assert message.isprintable()


def test_class_names_that_look_like_markup_are_kept(tmp_path):
    for folder in ("<script>alert(1)", "[red]猫"):
        put(tmp_path / folder / "0.png")
        put(tmp_path / folder / "1.png")
    assert load_images(tmp_path).classes == ("<script>alert(1)", "[red]猫")


def test_file_names_in_messages_are_printable(tmp_path):
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        put(tmp_path / name)
    (tmp_path / "b" / "\x1b[2J\n.png").write_bytes(b"no image")
    assert refusal(tmp_path).isprintable()
