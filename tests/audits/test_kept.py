"""Steps of an interrupted audit are read, not made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from doorward.audits.parts.anew import Anew
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import make_trainer
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from tests.audits.records import made_images


def test_a_net_is_trained_once_and_read_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = made_images(per_class=20)
    anew = Anew(make_trainer(images, "two-layer", "cpu"), "two-layer")
    kept = Kept(tmp_path)
    first = anew.kept(kept, "train", "model", images, 1)
    assert kept.seconds["train"] > 0

    def never(self: Anew, images: ImageSet, seed: int) -> Classifier:
        raise AssertionError("trained again")

    monkeypatch.setattr(Anew, "train", never)
    again = Kept(tmp_path)
    second = anew.kept(again, "train", "model", images, 1)
    assert np.array_equal(first.predict(images.pixels), second.predict(images.pixels)) and not again.seconds
    with pytest.raises(AssertionError, match="trained again"):
        anew.kept(Kept(tmp_path), "retrain", "net of round 2", images, 1)


def test_half_a_net_is_none(tmp_path: Path) -> None:
    images = made_images(per_class=20)
    anew = Anew(make_trainer(images, "two-layer", "cpu"), "two-layer")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"cut off")
    assert anew.kept(Kept(tmp_path), "train", "model", images, 1).arch == "two-layer"


def test_arrays_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    (tmp_path / "a-step.npz").write_bytes(b"cut off")
    with pytest.raises(DoorwardError, match=r"a-step\.npz: a step of an audit that cannot be read"):
        kept.arrays("stage", "a step", dict)
