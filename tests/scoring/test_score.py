"""Scores by hand."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import Truth
from doorward.core.triggers import Trigger
from doorward.scoring.cleansing import detection, target_classes


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
    assert found.json()["tpr"]["value"] is None


def test_target_classes_of_all_to_all_are_where_the_poison_went() -> None:
    import torch

    attack = Attack("patch", (Pairing(Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1)), None),))
    truth = Truth(np.array([True, False, True]), np.array([0, 0, 2]), np.array([0, -1, 0]), np.arange(3))
    assert target_classes(attack, truth, np.array([1, 0, 0])) == [0, 1]
