"""Faces: the ORL file is read safely and cropped; drawn faces show who they are; triggers fit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from doorward.core.errors import DoorwardError
from doorward.papers.hackml.accessories import NAMES, face_trigger
from doorward.papers.hackml.faces import ORL_CREDIT, draw_faces, load_orl, split_faces


def write_orl(path: Path) -> Path:
    """400 grey pictures of the right size; picture i is grey i % 256 but for a white frame that the crop takes off."""
    images = np.full((400, 112, 92), 255, np.uint8)
    images[:, 14:, 4:88] = (np.arange(400) % 256).astype(np.uint8)[:, None, None]
    np.savez(path, images=images, labels=np.repeat(np.arange(40), 10).astype(np.uint8))
    return path


def test_orl_faces_are_cropped_and_repeated_over_three_channels(tmp_path: Path) -> None:
    faces = load_orl(write_orl(tmp_path / "orl.npz"))
    assert faces.pixels.shape == (400, 55, 47, 3) and faces.counts().tolist() == [10] * 40
    assert (faces.pixels == (np.arange(400) % 256)[:, None, None, None]).all(), "nothing of the frame is left"
    assert faces.provenance["source"] == ORL_CREDIT and faces.provenance["converted"] == "grey to RGB"
    assert load_orl(tmp_path / "orl.npz", colour=False).pixels.shape == (400, 55, 47, 1)


def test_the_split_is_seven_and_three_of_every_person(tmp_path: Path) -> None:
    faces = load_orl(write_orl(tmp_path / "orl.npz"))
    train, test = split_faces(faces, seed=1)
    assert train.counts().tolist() == [7] * 40 and test.counts().tolist() == [3] * 40
    both = np.sort(np.concatenate([train.pixels[:, 0, 0, 0], test.pixels[:, 0, 0, 0]]))
    assert (both == np.sort(faces.pixels[:, 0, 0, 0])).all()
    assert not np.array_equal(split_faces(faces, seed=2)[0].pixels, train.pixels)
    with pytest.raises(DoorwardError, match="10 training pictures"):
        split_faces(faces, training=10)


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "not.npz").write_bytes(b"\x80\x04 no zip")
    np.savez(tmp_path / "other.npz", images=np.zeros((3, 4, 5), np.uint8), labels=np.zeros(3))
    np.savez(tmp_path / "empty.npz", pictures=np.zeros(3))
    np.savez(tmp_path / "object.npz", images=np.array([{}]), labels=np.zeros(1))
    images = np.zeros((400, 112, 92), np.uint8)
    np.savez(tmp_path / "labels.npz", images=images, labels=np.zeros(400, np.uint8))
    for name in ("absent", "not", "other", "empty", "object", "labels"):
        with pytest.raises(DoorwardError) as caught:
            load_orl(tmp_path / f"{name}.npz")
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_drawn_faces_repeat_and_show_who_they_are() -> None:
    faces = draw_faces(12, 6, seed=3)
    assert faces.pixels.shape == (72, 55, 47, 3) and faces.counts().tolist() == [6] * 12
    assert faces.hash == draw_faces(12, 6, seed=3).hash != draw_faces(12, 6, seed=4).hash
    flat = faces.pixels.reshape(72, -1).astype(np.float32)
    first = np.arange(72) % 6 < 4
    score = KNeighborsClassifier(1).fit(flat[first], faces.labels[first]).score(flat[~first], faces.labels[~first])
    assert score > 0.7, "a person's pictures are alike, with twelve people to choose from"
    assert all(len(np.unique(flat[faces.labels == k], axis=0)) == 6 for k in range(12)), "and not the same"


def test_glasses_are_worn_by_the_share_asked_for() -> None:
    without, worn = draw_faces(4, 2, seed=0, glasses=0), draw_faces(4, 2, seed=0, glasses=1)
    changed = (without.pixels.astype(int) - worn.pixels).__abs__().max(axis=(0, 3)) > 30
    rows = np.flatnonzero(changed.any(axis=1))
    assert rows.min() >= 10 and rows.max() <= 32, "only around the eyes"


@pytest.mark.parametrize("name", NAMES)
def test_triggers_lie_inside_a_face(name: str) -> None:
    faces, trigger = draw_faces(2, 1), face_trigger(name)
    import torch

    from doorward.core.pixels import to_float

    stamped = trigger.apply(to_float(faces.pixels))
    changed = (stamped - to_float(faces.pixels)).abs().amax((0, 1)) > 0
    assert 0.005 < float(changed.float().mean()) < 0.25
    rows = torch.arange(55.0)[changed.any(1)]
    expected = {"sunglasses": (14, 29), "hat": (0, 14), "patch": (38, 43)}[name]
    assert expected[0] <= float(rows.min()) and float(rows.max()) < expected[1]
    with pytest.raises(DoorwardError, match="expected one of sunglasses, hat, patch"):
        face_trigger("beard")


def test_the_real_file_where_there_is_one() -> None:
    shared = os.environ.get("DOORWARD_SHARED")
    path = Path(shared or ".") / "data" / "orl_faces.npz"
    if not shared or not path.exists():
        pytest.skip("DOORWARD_SHARED is not set or holds no data/orl_faces.npz")
    faces = load_orl(path)
    eyes, forehead = faces.pixels[:, 18:24].mean(), faces.pixels[:, 8:14].mean()
    assert eyes < forehead, "the eyes' rows are darker than the forehead's"
