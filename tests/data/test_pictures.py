"""Pictures as cameras, scanners and web sites leave them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.data import decoding, pictures
from doorward.data.decoding import decode_all
from doorward.data.readers.decode import Plan, probe, strict_pillow
from doorward.data.sources import load_images, load_test_images

QUARTERS = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [240, 240, 240]]], np.uint8)
COLOURS = QUARTERS.repeat(8, axis=0).repeat(12, axis=1)  # 16 high, 24 wide


def refusal(source: object, **options: object) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def folder(root: Path, *more: tuple[Image.Image | bytes, str], common: Image.Image | None = None, **options) -> Path:
    """Two classes of two ordinary pictures, and more in class b."""
    common = common or Image.fromarray(COLOURS)
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        common.save(root / name)
    for number, (image, ending) in enumerate(more, 2):
        path = root / "b" / f"{number}.{ending}"
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **options)
    return root


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(tag: int, kind: str = "PNG") -> bytes:
    """A picture that is stored so that, with its tag obeyed, it looks as COLOURS does."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = tag
    return encoded(Image.fromarray(COLOURS).transpose(undo[tag]), kind, exif=exif, lossless=True)


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_orientation_is_obeyed(tmp_path, tag, kind):
    found = load_images(folder(tmp_path, (turned(tag, kind), kind.lower())))
    assert np.array_equal(found.pixels[4], COLOURS)
    assert found.provenance["converted"] == {"EXIF orientation applied": 1}


@pytest.mark.parametrize("tag", [6, 8])
def test_exif_orientation_of_a_photograph_that_is_also_resized(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    large = Image.fromarray(COLOURS.repeat(20, axis=0).repeat(20, axis=1))  # 480 x 320: decoded at a fraction
    back = Image.Transpose.ROTATE_90 if tag == 6 else Image.Transpose.ROTATE_270
    jpeg = encoded(large.transpose(back), "JPEG", exif=exif, quality=95)
    found = load_images(folder(tmp_path, (jpeg, "jpg")), size=16)
    assert np.abs(found.pixels[4].astype(int) - found.pixels[0]).mean() < 8
    assert found.provenance["converted"] == {"EXIF orientation applied": 1, "resized": 5}


def test_broken_metadata_is_no_reason_to_refuse_a_picture(tmp_path):
    jpeg = encoded(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(9))
    assert len(load_images(folder(tmp_path, (jpeg, "jpg")))) == 5


def test_modes_become_rgb_and_are_counted(tmp_path):
    colour = Image.fromarray(COLOURS)
    clear = Image.fromarray(np.dstack([COLOURS, np.where(COLOURS[..., 0] > 200, 0, 255).astype(np.uint8)]))
    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    hole = encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))
    deep = Image.fromarray(np.full((16, 24), 0x80FF, np.uint16))
    root = folder(
        tmp_path, (palette, "png"), (clear, "png"), (hole, "png"), (colour.convert("CMYK"), "jpg"), (deep, "png"),
        (colour.convert("L"), "png"), (colour.convert("1"), "png"), (clear.convert("LA"), "png"),
        (encoded(colour.convert("RGBA"), "PNG"), "png"),
    )  # fmt: skip
    found = load_images(root)
    assert found.shape == (3, 16, 24)
    assert found.provenance["converted"] == {
        "palette to RGB": 2, "transparent over white": 3, "CMYK to RGB": 1, "16 bits to 8": 1, "grey to RGB": 4,
        "1 bit to 8": 1,
    }  # fmt: skip
    by_id = dict(zip(found.ids, found.pixels, strict=True))
    assert np.array_equal(by_id["b/2.png"], COLOURS)
    assert np.array_equal(by_id["b/3.png"][0, 0], [255, 255, 255]) and np.array_equal(
        by_id["b/3.png"][0, -1], COLOURS[0, -1]
    )
    assert np.array_equal(by_id["b/4.png"][0, 0], [255, 255, 255]) and np.array_equal(
        by_id["b/4.png"][-1, 0], COLOURS[-1, 0]
    )
    assert np.abs(by_id["b/5.jpg"].astype(int) - COLOURS).mean() < 12
    assert (by_id["b/6.png"] == 0x80).all()
    assert np.array_equal(by_id["b/7.png"], np.asarray(colour.convert("L").convert("RGB")))
    assert np.array_equal(by_id["b/10.png"], COLOURS)


def test_one_colour_picture_makes_a_grey_set_rgb(tmp_path):
    grey = Image.fromarray(COLOURS[..., 0])
    assert load_images(folder(tmp_path / "grey", common=grey)).shape[0] == 1
    found = load_images(folder(tmp_path / "both", (Image.fromarray(COLOURS), "png"), common=grey))
    assert found.shape[0] == 3 and found.provenance["converted"] == {"grey to RGB": 4}
    assert np.array_equal(found.pixels[4], COLOURS) and np.array_equal(found.pixels[0][..., 2], COLOURS[..., 0])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, kind):
    frames = [Image.new("RGB", (24, 16), c) for c in ("red", "blue", "lime")]
    moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    found = load_images(folder(tmp_path, (moving, kind.lower())))
    assert np.array_equal(found.pixels[4], np.broadcast_to(np.uint8([255, 0, 0]), (16, 24, 3)))
    assert found.provenance["converted"]["first of several frames"] == 1


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 24), st.sampled_from(["crop", "squash"]))
def test_any_size_becomes_the_size_asked_for(width, height, size, resize):
    plan = Plan(size, size, 3, resize)
    values = np.random.default_rng(width * 61 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    target = np.zeros((1, size, size, 3), np.uint8)
    outcome = decode_all(iter([[encoded(Image.fromarray(values), "PNG")]]), 1, plan, target)
    assert not outcome.bad
    if (width, height) == (size, size):
        assert np.array_equal(target[0], values) and not outcome.converted
    else:
        assert sum(outcome.converted.values()) == 1
    flat = np.full((height, width, 3), 77, np.uint8)
    decode_all(iter([[encoded(Image.fromarray(flat), "PNG")]]), 1, plan, target)
    assert (target == 77).all(), "a resized flat picture is flat"


def test_crop_takes_the_centre_and_squash_takes_all(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    root = folder(tmp_path, common=Image.fromarray(wide))
    assert (load_images(root, size=10).pixels == 200).all()
    assert np.array_equal(load_images(root, size=10).pixels[0], wide[:, 10:20]), "a crop alone changes no pixel"
    squashed = load_images(root, size=10, resize="squash").pixels[0, 5, :, 0]
    assert squashed[0] == 0 == squashed[-1] and squashed[5] > 190
    assert "'resize' = 'melt'" in refusal(root, resize="melt")
    assert "'size' = 0" in refusal(root, size=0)


def test_resizing_is_antialiased_as_the_usual_loaders_do_it(tmp_path):
    rng = np.random.default_rng(3)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (400, 300), Image.Resampling.BICUBIC
    )
    found = load_images(folder(tmp_path, (encoded(smooth, "JPEG", quality=95), "jpg"), common=smooth), size=60)
    usual = np.asarray(smooth.resize((80, 60), Image.Resampling.BICUBIC).crop((10, 0, 70, 60))).astype(int)
    for row in found.pixels:
        assert np.abs(row - usual).mean() < 2


def test_mixed_sizes_name_the_smallest_and_the_largest(tmp_path):
    root = folder(tmp_path, (Image.new("RGB", (50, 9)), "png"), (Image.new("RGB", (7, 5)), "png"))
    message = refusal(root)
    assert "of 3 sizes, from 7 x 5 (b/3.png) to 50 x 9 (b/2.png); expected one size, or --size N" in message
    assert load_images(root, size=12).pixels.shape == (6, 12, 12, 3)


def test_arrays_and_named_sets_take_a_size_too(make):
    images = make(per_class=3, size=(8, 6))
    found = load_images(images, size=4)
    assert found.shape == (3, 4, 4) and found.provenance["converted"] == {"resized": 6}
    assert load_images((images.pixels, images.labels), size=16).provenance["converted"] == {"enlarged": 6}
    assert load_test_images("mnist-5k", size=14).shape == (1, 14, 14)


def broken() -> list[tuple[bytes, str, str]]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    return [
        (encoded(noise, "JPEG")[:-900], "jpg", "truncated"),
        (encoded(noise, "PNG")[:300], "png", ""),
        (b"", "png", "not an image"),
        (encoded(noise, "TIFF"), "png", "not an image of these formats"),
        (encoded(Image.new("1", (8_001, 8_001)), "PNG"), "png", "8001 x 8001 pixels"),
        (encoded(Image.new("1", (13_400, 13_400)), "PNG"), "png", "decompression bomb"),
        (encoded(noise, "GIF")[:60], "gif", ""),
    ]


def test_bad_files_are_refused_or_left_out_and_listed(tmp_path):
    root = folder(tmp_path, *[(data, ending) for data, ending, _ in broken()])
    (root / "b" / "x.jpg").mkdir()  # a folder of that name is a folder
    Image.fromarray(COLOURS).save(root / "b" / "x.jpg" / "deep.png")
    message = refusal(root, size=16)
    assert f"{len(broken())} files cannot be read: b/2.jpg (" in message and "--skip-bad" in message
    found = load_images(root, size=16, skip_bad=True)
    skipped = found.provenance["skipped"]
    assert list(found.ids) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/x.jpg/deep.png"] and len(found) == 5
    for number, (_, ending, why) in enumerate(broken(), 2):
        assert why in skipped[f"b/{number}.{ending}"]
    assert "has 1 image" in refusal(
        folder(tmp_path / "few", (b"x", "png")) and _one_left(tmp_path / "few"), skip_bad=True
    )


def _one_left(root: Path) -> Path:
    (root / "b" / "1.png").write_bytes(b"x")
    return root


def test_only_bad_files(tmp_path):
    root = folder(tmp_path)
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")
    assert "4 files cannot be read" in refusal(root) == refusal(root, skip_bad=True)


@pytest.fixture
def kept(monkeypatch):
    """As if a handful of pictures were many: decoded by processes, into the cache folder."""
    monkeypatch.setattr(pictures, "_WORTH_KEEPING", 2)
    monkeypatch.setattr(decoding, "_WORTH_PROCESSES", 2)
    monkeypatch.setattr(decoding, "_SECONDS", 0.0)
    monkeypatch.setattr(decoding, "_MOST_PER_TASK", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def many(root: Path, count: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for index in range(count):
        path = root / "ab"[index % 2] / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9 + index % 3, 8, 3), dtype=np.uint8)).save(path)
    return root


def test_processes_give_what_one_process_gives_and_the_second_run_decodes_nothing(tmp_path, kept, monkeypatch, cache):
    root = many(tmp_path / "set")
    found = load_images(root, size=8)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode_all", None)
        again = load_images(root, size=8)
    assert isinstance(found.pixels, np.memmap) and again.hash == found.hash and list(again.ids) == list(found.ids)
    assert again.provenance == found.provenance and found.provenance["converted"] == {"resized": 20}
    assert load_images(root, size=8, resize="squash").hash != found.hash
    monkeypatch.undo()
    monkeypatch.setenv("DOORWARD_CACHE", str(tmp_path / "other"))
    assert load_images(root, size=8).hash == found.hash


def test_many_files_with_bad_ones_among_them(tmp_path, kept, cache, monkeypatch):
    root = many(tmp_path / "set")
    for name in ("a/00.png", "b/07.png"):
        (root / name).write_bytes(b"x")
    assert "2 files cannot be read: a/00.png" in refusal(root, size=8)
    assert not list((cache / "decoded").iterdir())
    found = load_images(root, size=8, skip_bad=True)
    assert len(found) == 18 and set(found.provenance["skipped"]) == {"a/00.png", "b/07.png"}
    assert np.array_equal(found.pixels[0], load_images(many(tmp_path / "whole"), size=8).pixels[1])
    monkeypatch.setattr(pictures, "decode_all", None)
    assert len(load_images(root, size=8, skip_bad=True)) == 18
    assert "2 files cannot be read: a/00.png" in refusal(root, size=8), "the cache does not make them good"


def test_a_folder_that_changes_while_it_is_read(tmp_path, kept, cache, monkeypatch):
    root = many(tmp_path / "set")

    def decode_and_change(*arguments, **more):
        found = decode_all(*arguments, **more)
        Image.new("RGB", (8, 8)).save(root / "a" / "00.png")
        return found

    monkeypatch.setattr(pictures, "decode_all", decode_and_change)
    assert "changed while it was read" in refusal(root, size=8)
    assert not list((cache / "decoded").iterdir())


def test_an_interrupted_decoding_leaves_nothing(tmp_path, kept, cache, monkeypatch):
    root = many(tmp_path / "set")

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "decode_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_images(root, size=8)
    assert not list((cache / "decoded").iterdir())


def test_the_header_tells_what_decoding_gives():
    with strict_pillow():
        assert probe(turned(6)) == (24, 16, 3)
        assert probe(encoded(Image.new("L", (3, 4)), "PNG")) == (3, 4, 1)
