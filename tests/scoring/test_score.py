"""Scores by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from doorward.attacks.plan import Attack, Pairing
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.results import RateRecord
from doorward.core.stats import Rate
from doorward.core.triggers import Trigger
from doorward.scoring.cleansing import detection
from doorward.scoring.results import AttackFacts, HeldOutFacts, ModelScore, ScoreRecord
from doorward.scoring.truth import target_classes


def test_rates_by_hand() -> None:
    #             poisoned -> 3, of which 2 flagged; clean 5, of which 1 flagged; clean in the target class 2, 1 flagged
    poisoned = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    flag = np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)
    target = np.array([1, 1, 1, 1, 1, 0, 0, 0], bool)
    score = np.array([9, 8, 2, 7, 1, 1, 1, 3], np.float32)
    found = detection(flag, score, poisoned, target)
    assert (found.tpr.hits, found.tpr.trials) == (2, 3)
    assert (found.fpr.hits, found.fpr.trials) == (1, 5)
    assert (found.fpr_target.hits, found.fpr_target.trials) == (1, 2)
    assert (found.precision.hits, found.precision.trials) == (2, 3)
    # pairs (poisoned, clean) in the right order: 9 and 8 beat all five; 2 beats three
    assert found.auroc == pytest.approx(13 / 15)


def test_a_clean_control_has_no_true_positive_rate() -> None:
    nobody = np.zeros(4, bool)
    found = detection(np.array([1, 0, 0, 0], bool), np.zeros(4, np.float32), nobody, nobody)
    assert found.tpr.trials == 0 and found.auroc is None and (found.fpr.hits, found.fpr.trials) == (1, 4)
    assert found.tpr.value is None


def test_target_classes_of_all_to_all_are_where_the_poison_went() -> None:
    import torch

    attack = Attack("patch", (Pairing(Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1)), None),))
    assert target_classes(attack, np.array([True, False, True]), np.array([1, 0, 0])) == (0, 1)


def test_a_score_is_the_same_after_the_disk(tmp_path: Path) -> None:
    rate = RateRecord.of(Rate(3, 4))
    method = detection(np.array([True, False]), np.ones(2, np.float32), np.zeros(2, bool), np.zeros(2, bool))
    facts = AttackFacts(recipe="patch", description="any class -> a", poisoned=3, targets=(0,))
    score = ScoreRecord(
        attack=facts, methods={"m": method}, models=(ModelScore(name="n", clean_accuracy=rate, asr=rate),)
    )
    score.write(tmp_path)
    assert ScoreRecord.read(tmp_path) == score and "test" not in read_json(tmp_path / "score.json")
    measured = score.model_copy(update={"test": HeldOutFacts(name="digits", images=9)})
    measured.write(tmp_path)
    assert ScoreRecord.read(tmp_path) == measured
    assert ScoreRecord.read(tmp_path / "nowhere") is None
    write_json(tmp_path / "score.json", {"models": [{"name": "n"}]})
    with pytest.raises(DoorwardError, match="models.0.clean_accuracy.*expected a run of this version"):
        ScoreRecord.read(tmp_path)
