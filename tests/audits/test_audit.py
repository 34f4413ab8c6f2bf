"""The whole loop on a few hundred digits, with its trainings cut short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import doorward as dw
from doorward.audits import audit as verb
from doorward.audits import rounds
from doorward.audits.audit import audit
from doorward.audits.parts import trainer
from doorward.audits.results import Audit
from doorward.core.errors import DoorwardError


@pytest.fixture(scope="module")
def digits() -> dw.ImageSet:
    images = dw.load_images("mnist-5k")
    return images.subset(np.flatnonzero(images.labels < 5)[::3])  # 700 of five classes


@pytest.fixture(scope="module")
def poisoned(digits: dw.ImageSet):
    return dw.attack(digits, "patch", target=1, rate=0.06, seed=7, settings={"size": 3})


@pytest.fixture(scope="module")
def found(poisoned, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_STEPS", 120)
        patch.setattr(verb, "MOST_ROUNDS", 1)
        patch.setattr(rounds, "MOST", 1)
        return audit(poisoned.images, seed=3, folder=tmp_path_factory.mktemp("steps"))


def test_a_patch_is_shown_to_be_planted_and_its_images_are_named(found: Audit, poisoned) -> None:
    assert found.verdict == "planted" and found.targets == ("1",)
    suspects = found.suspected()
    assert suspects[poisoned.truth.poisoned].mean() > 0.9
    assert suspects[~poisoned.truth.poisoned].mean() < 0.01
    (target,) = found.record.targets_looked_into
    assert target.experiment is not None and target.experiment.stops
    assert "its trigger works on" in found.record.judgement.reasons[0]


def test_the_retrained_model_has_no_backdoor(found: Audit, poisoned) -> None:
    from doorward.attacks.rate import asr

    test = dw.load_images("mnist-5k", split="test")
    test = test.subset(test.labels < 5)
    assert found.model is not None and found.repaired is not None
    small = dw.ImageSet(test.pixels, test.labels, found.model.classes)
    assert asr(found.model, small, poisoned.attack).value > 0.8
    assert asr(found.repaired, small, poisoned.attack).value < 0.1


def test_a_saved_audit_reads_back_as_it_was(found: Audit, poisoned, tmp_path: Path) -> None:
    again = Audit.load(found.save(tmp_path / "run"))
    assert again.record == found.record
    assert again.suspects() == found.suspects() and again.triggers.keys() == found.triggers.keys()
    assert len(again.cleaned(poisoned.images)) == len(poisoned.images) - len(found.suspects())
    lines = (tmp_path / "run" / "suspects.csv").read_text().splitlines()
    assert lines[0] == "id,class,predicted,evidence,score" and len(lines) == 1 + len(found.suspects())
    scores = [float(line.rsplit(",", 1)[1]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)


def test_an_audit_has_something_to_audit(digits: dw.ImageSet) -> None:
    with pytest.raises(DoorwardError, match="no training set"):
        audit(None)
    with pytest.raises(DoorwardError, match="level 2"):
        audit(digits, level=2)
