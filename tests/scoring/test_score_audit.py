"""Audits against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from doorward.attacks.files import save_attack, save_truth
from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.audits.results import MODEL
from doorward.core.errors import DoorwardError
from doorward.models.files import save_classifier
from doorward.models.train.loop import train
from doorward.reports.page import compose
from doorward.scoring.results import ScoreRecord
from doorward.scoring.score import score
from tests.audits.records import TARGET, made_alone, made_audit, made_images, made_trigger


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit with a net of its own; the truth; what both are about."""
    folder = tmp_path_factory.mktemp("scored")
    attack = Attack("patch", (Pairing(made_trigger(), TARGET),))
    made = poison(made_images(60, 0), attack, rate=0.04, seed=1)
    rows = np.flatnonzero(made.truth.poisoned)
    innocent = np.flatnonzero((made.images.labels == TARGET) & ~made.truth.poisoned)
    found = made_audit(images=made.images, suspects=np.concatenate([rows[:-3], innocent[:2]]))
    found.save(folder / "audit")
    (folder / "audit" / MODEL).mkdir()
    save_classifier(train(made_images(60, 0), "two-layer", {"epochs": 5}, seed=1), folder / "audit" / MODEL)
    save_attack(attack, folder / "attack")
    save_truth(made.truth, folder / "truth.parquet")
    return folder


def test_suspects_are_held_against_the_truth(place: Path) -> None:
    found = score(place / "audit", place / "truth.parquet")
    assert list(found.methods) == ["audit"] and found.models == ()
    rates = found.methods["audit"]
    poisoned = rates.tpr.trials
    assert found.attack is not None and found.attack.poisoned == poisoned and found.attack.targets == (TARGET,)
    assert (rates.tpr.hits, rates.fpr.hits) == (poisoned - 3, 2)
    assert (rates.precision.hits, rates.precision.trials) == (poisoned - 3, poisoned - 1)


def test_the_net_without_suspects_is_measured_on_test_images(place: Path) -> None:
    test = made_images(20, 0)
    found = score(place / "audit", place / "truth.parquet", test=test, models=[("mine", place / "audit" / MODEL)])
    assert [m.name for m in found.models] == ["audit", "mine"]
    own, mine = found.models
    assert own.clean_accuracy == mine.clean_accuracy and own.clean_accuracy.trials == len(test)
    assert own.asr.trials == 180 and (own.clean_accuracy.value or 0) > 0.9
    assert ScoreRecord.read(place / "audit") == found
    assert "Against the ground truth" in compose(place / "audit").html


def test_a_list_of_ids_and_a_clean_control_will_do(place: Path, tmp_path: Path) -> None:
    run = made_audit().save(tmp_path / "audit")
    names = [name for name in made_images().ids if name.startswith("7/")]
    (tmp_path / "ids.txt").write_text("\n".join(names[:10]))
    assert score(run, tmp_path / "ids.txt").methods["audit"].tpr.hits == 10
    control = score(run, None)
    assert control.attack is None and control.methods["audit"].fpr.hits == 20


def test_a_model_alone_and_models_without_images_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DoorwardError, match="a model alone was audited"):
        score(made_alone().save(tmp_path / "audit"), None)
    with pytest.raises(DoorwardError, match="models need test images"):
        score(place / "audit", None, models=[("mine", place / "audit" / MODEL)])
