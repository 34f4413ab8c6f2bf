"""A repair as a run in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.data import load_images
from doorward.errors import DoorwardError
from doorward.repair.command import RepairRequest, known_clean, repair_to_folder
from doorward.runs import Run
from doorward.train import TrainSettings, load_classifier, save_classifier, train
from tests.conftest import make_images


def test_the_run_holds_a_classifier_and_the_record(tmp_path: Path) -> None:
    images = make_images(120, shape=(12, 12, 3))
    for name in ("clean", "model"):
        (tmp_path / name).mkdir()
    images.save(tmp_path / "clean")
    save_classifier(train(images, "small-cnn", TrainSettings(epochs=3, batch=16, lr=0.05)), tmp_path / "model")
    request = RepairRequest(model=str(tmp_path / "model"), clean=str(tmp_path / "clean"), settings={"epochs": 1})
    results = repair_to_folder(request, tmp_path / "repaired")
    assert results == Run.read(tmp_path / "repaired", "repair")["results"]
    assert results["knowledge"] == ["clean_images"] and len(results["steps"]) == 3
    count, order = results["details"]["pruned"], results["details"]["order"]
    weight = load_classifier(tmp_path / "repaired").net.hidden.weight.reshape(64, 32, -1)
    assert count > 0 and (weight[:, order[:count]] == 0).all()
    with pytest.raises(
        DoorwardError, match="repair: no method 'polish'; expected one of fine-tune, refresh, ibau, prune"
    ):
        repair_to_folder(request.model_copy(update={"method": "polish"}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_share_of_the_clean_images_keeps_every_class() -> None:
    digits = load_images("mnist-5k")
    some = known_clean(digits, 0.1, 3)
    assert some.counts().tolist() == [40] * 10 and (some.hash == known_clean(digits, 0.1, 3).hash)
    assert some.hash != known_clean(digits, 0.1, 4).hash and known_clean(digits, 1.0, 0) is digits
    assert known_clean(digits, 1e-6, 0).counts().tolist() == [1] * 10
