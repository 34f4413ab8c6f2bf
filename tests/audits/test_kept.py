"""Steps of an interrupted audit are read, not made again."""

from __future__ import annotations

import time
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


def test_seconds_of_an_interrupted_audit_are_added_up(tmp_path: Path) -> None:
    first = Kept.resumed(tmp_path)
    with first.timed("train"), first.below("round-1").timed("cleansers"):
        time.sleep(0.02)
    again = Kept.resumed(tmp_path)
    assert again.seconds == first.seconds and min(again.seconds.values()) >= 0.02
    with again.below("round-1").timed("cleansers"):
        time.sleep(0.02)
    assert Kept.resumed(tmp_path).seconds["cleansers"] >= 0.04
    (tmp_path / "seconds.json").write_text("[1]")
    assert not Kept.resumed(tmp_path).seconds and not Kept.resumed(None).seconds
