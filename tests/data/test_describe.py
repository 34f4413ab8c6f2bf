from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from doorward.core.images import ImageSet
from doorward.data.sources import load_images
from doorward.data.summary import channel_statistics, describe, duplicates


def images_of(pixels: np.ndarray, labels: list[int]) -> ImageSet:
    return ImageSet(pixels, np.array(labels, np.int64), tuple(f"c{k}" for k in range(max(*labels, 1) + 1)))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(2, 9), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])))
)
def test_statistics_are_numpys(pixels):
    mean, std = channel_statistics(images_of(pixels, [0] * (len(pixels) - 1) + [1]))
    assert mean == pytest.approx((pixels / 255).mean((0, 1, 2)), abs=1e-12)
    assert std == pytest.approx((pixels / 255).std((0, 1, 2)), abs=1e-7)


def test_duplicates_by_hand():
    #        0  1  2  3  4  5  6: images 0, 2, 5 are one picture with two labels; 1 and 4 one picture with one label
    values = [7, 8, 7, 9, 8, 7, 1]
    pixels = np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (7, 2, 2, 1))
    found = duplicates(images_of(pixels, [0, 1, 0, 1, 1, 1, 0]))
    assert found == {
        "images": 3,
        "groups": 2,
        "conflicting": 3,
        "examples": [[0, 2, 5], [1, 4]],
        "ids": [["0", "2", "5"], ["1", "4"]],
    }


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=30))
def test_duplicates_are_counted_as_a_direct_count_would(pairs):
    values, labels = np.array([v for v, _ in pairs], np.uint8), np.array([k for _, k in pairs])
    found = duplicates(images_of(values[:, None, None, None], labels.tolist()))
    same = values[:, None] == values[None, :]
    assert found["images"] == len(values) - len(np.unique(values))
    assert found["conflicting"] == int((same & (labels[:, None] != labels[None, :])).any(1).sum())
    assert found["groups"] == sum(1 for v in np.unique(values) if (values == v).sum() > 1)


def test_describe_is_plain_json_and_warns(make):
    images = make(per_class=3)
    pixels = images.pixels.copy()
    pixels[5] = pixels[0]
    found = describe(load_images((pixels, images.labels), name="mine"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["name"], found["images"], found["shape"]) == ("mine", 6, [3, 5, 4])
    assert found["classes"] == [{"name": "0", "count": 3}, {"name": "1", "count": 3}]
    assert found["warnings"] == [
        "2 class(es) with fewer than 20 images: '0' (3), '1' (3)",
        "2 images have an exact copy with another label",
        "1 images are exact copies of an earlier one",
    ]


def test_an_uneven_set_and_a_reader_s_notes_are_told(make):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (242, 4, 4, 1), dtype=np.uint8)
    labels = np.array([0] * 220 + [1] * 22)
    note = {"notes": ["every image was converted"]}
    images = ImageSet(pixels, labels, ("a", "b"), provenance=note)
    assert describe(images)["warnings"] == ["every image was converted"]
    labels[220] = 0
    assert describe(images)["warnings"][0] == "the largest class has 221 images, the smallest 21"
