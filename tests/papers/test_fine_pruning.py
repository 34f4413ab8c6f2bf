"""A repair as a run in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.core.errors import DoorwardError
from doorward.models.files import load_classifier, save_classifier
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.cluster_impurity.pruned import PruneRequest, prune_to_folder
from doorward.repairs.results import Repair
from tests.conftest import make_images


def test_the_run_holds_a_classifier_and_the_record(tmp_path: Path) -> None:
    images = make_images(120, shape=(12, 12, 3))
    for name in ("clean", "model"):
        (tmp_path / name).mkdir()
    images.save(tmp_path / "clean")
    save_classifier(train(images, "small-cnn", TrainSettings(epochs=3, batch=16, lr=0.05)), tmp_path / "model")
    request = PruneRequest(model=str(tmp_path / "model"), clean=str(tmp_path / "clean"), settings={"epochs": 1})
    made = prune_to_folder(request, tmp_path / "repaired")
    assert made.record == Repair.load(tmp_path / "repaired").record and made.verdict == "undecided"
    arm = made.record.first
    assert arm.knowledge == ("clean_images",) and len(arm.steps) == 3
    count, order = arm.details["pruned"], arm.details["order"]
    weight = load_classifier(tmp_path / "repaired").net.hidden.weight.reshape(64, 32, -1)
    assert count > 0 and (weight[:, order[:count]] == 0).all()
    with pytest.raises(DoorwardError, match="repair: no method 'polish'; expected one of .*fine-tune, .*prune"):
        prune_to_folder(request.model_copy(update={"method": "polish"}), tmp_path / "other")
    assert not (tmp_path / "other").exists()
