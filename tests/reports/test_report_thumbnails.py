import base64
import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from doorward.reports.thumbnails import LONGEST_STRIP, Thumbnail, encode, strips

NOISE = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)


def decode(thumbnail: Thumbnail) -> Image.Image:
    head, data = thumbnail.uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)), formats=("PNG",))


def test_pixels_survive_the_png() -> None:
    assert np.array_equal(np.asarray(decode(encode(NOISE[0]))), NOISE[0])
    grey = NOISE[0][..., :1]
    assert np.array_equal(np.asarray(decode(encode(grey))), grey[..., 0])


def test_a_large_image_is_shrunk_with_its_proportions() -> None:
    wide = encode(np.zeros((100, 200, 3), dtype=np.uint8))
    assert decode(wide).size == (64, 32)
    assert not wide.pixelated


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60_000), st.integers(1, 8))
def test_strips_stay_within_the_budget(budget: int, count: int) -> None:
    shown = strips(NOISE, {k: list(range(40)) for k in range(count)}, budget)
    assert sum(len(t.uri) for strip in shown.values() for t in strip) <= budget
    assert all(1 <= len(strip) <= LONGEST_STRIP for strip in shown.values())


def test_images_that_pack_worse_than_the_first_do_not_break_the_budget() -> None:
    flat = np.zeros_like(NOISE[:1])
    shown = strips(np.concatenate([flat, NOISE]), {k: [0, *range(1, 20)] for k in range(4)}, 9_000)
    assert 0 < sum(len(t.uri) for strip in shown.values() for t in strip) <= 9_000


def test_all_strips_are_cut_alike() -> None:
    lengths = [len(s) for s in strips(NOISE, {k: list(range(k, k + 16)) for k in range(4)}, 30_000).values()]
    assert len(lengths) == 4
    assert 4 <= max(lengths) < LONGEST_STRIP
    assert max(lengths) - min(lengths) <= 1


def test_strips_are_long_when_there_is_room_and_the_last_go_first() -> None:
    rows = {k: list(range(40)) for k in range(10)}
    assert {len(s) for s in strips(NOISE, rows, 10**6).values()} == {LONGEST_STRIP}
    tight = strips(NOISE, rows, 12_000)
    assert list(tight) == list(range(len(tight)))
    assert 0 < len(tight) < 10
    assert strips(NOISE, {}, 1000) == {}
    assert strips(NOISE, {0: []}, 1000) == {}


def test_the_worst_come_first() -> None:
    shown = strips(NOISE, {"a": [7, 3]}, 10**6)["a"]
    assert np.array_equal(np.asarray(decode(shown[0])), NOISE[7])
