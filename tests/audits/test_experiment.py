"""The experiment's arithmetic, and what it shows where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch

from doorward.audits.experiment import _drops, _folds, _random_others, _welch, experiment
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import Fits
from doorward.audits.records import ArmsRecord
from doorward.audits.verdict import level_of
from doorward.core.images import ImageSet
from doorward.core.triggers import Trigger


def test_a_trigger_that_stops_is_told_from_one_that_does_not() -> None:
    control, without = np.array([0.99, 0.97, 0.98]), np.array([0.01, 0.0, 0.02])
    assert _drops(control, without) and _welch(control, without, 1000) < 1e-4
    natural = np.array([0.7, 0.5, 0.6])
    assert not _drops(natural, np.array([0.6, 0.5, 0.55]))
    assert _welch(natural, np.array([0.6, 0.5, 0.55]), 1000) > 0.1


def test_welch_is_as_scipy_has_it_where_spreads_are_large() -> None:
    from scipy.stats import ttest_ind

    high, low = np.array([0.9, 0.7, 0.8]), np.array([0.5, 0.3, 0.6])
    theirs = ttest_ind(*(np.arcsin(np.sqrt(v)) for v in (high, low)), equal_var=False, alternative="greater").pvalue
    assert _welch(high, low, 10**9) == pytest.approx(theirs)


def test_equal_rates_of_few_images_show_nothing() -> None:
    assert _welch(np.array([1.0, 1.0, 1.0]), np.array([0.9, 0.9, 0.9]), 5) > 0.05
    assert _welch(np.array([np.nan, 1.0, 1.0]), np.array([0.0, 0.0, 0.0]), 5) == 1.0


def test_a_control_leaves_out_as_many_images_of_the_class_as_the_other_arm() -> None:
    labels = np.repeat([0, 1], 100)
    out = np.zeros(200, bool)
    out[:21] = True
    folds = _folds(out, labels, seed=0)
    for number in range(3):
        fold, random = out & (folds == number), _random_others(out, folds, number, labels, seed=0)
        assert fold.sum() == 7
        assert (fold | random).sum() == 21 and not (random & out).any() and (labels[random] == 0).all()


def test_the_experiment_and_the_tests_together_decide() -> None:
    stops, teaches = ArmsRecord(size=9, stops=True, plain=True), ArmsRecord(size=9, teaches=True)
    natural = ArmsRecord(size=9, stops=True)  # of a trigger that works on less than half of all pictures
    none, both = ArmsRecord(size=9), ArmsRecord(size=9, stops=True, teaches=True)
    weak, strong = {"a": 0.5, "b": 0.6}, {"a": 0.001, "b": 0.002}
    assert level_of(weak, 0.8, both, 0.05) == "planted"
    assert level_of({"a": 0.01, "b": 0.6}, 0.02, stops, 0.05) == "planted"
    assert level_of(weak, 0.4, stops, 0.05) == level_of(weak, None, stops, 0.05) == "evidence"
    assert level_of({"a": 0.01, "b": 0.6}, 0.02, natural, 0.05) == "suspicious"
    assert level_of(weak, 0.4, natural, 0.05) == "nothing found"
    assert level_of(weak, 0.8, stops, 0.05) == "nothing found", "hard images of a class that is like the others"
    assert level_of(strong, 0.002, none, 0.05) == "evidence"
    assert level_of({"a": 0.01, "b": 0.6}, 0.02, teaches, 0.05) == "evidence"
    assert level_of({"a": 0.01, "b": 0.6}, 0.02, none, 0.05) == "suspicious"
    assert level_of(weak, 0.09, teaches, 0.05) == level_of(weak, None, teaches, 0.05) == "suspicious"
    assert level_of(weak, 0.3, teaches, 0.05) == "nothing found", "hard images are a kind of their own"
    assert level_of(weak, 0.8, none, 0.05) == level_of(weak, None, None, 0.05) == "nothing found"


def test_where_most_of_a_class_is_suspected_no_experiment_is_made() -> None:
    class Refuses:
        """No training is asked for."""

    images = ImageSet(np.zeros((40, 4, 4, 1), np.uint8), np.repeat([0, 1], 20), ("a", "b"))
    suspects = np.arange(40) < 13  # 65 % of a class
    found = experiment(images, suspects, {0: []}, suspects, cast(Fits, Refuses()), 0, Kept())
    assert not found.arms and not found.poisoned.any() and not found.score.any()


def test_without_suspects_nothing_is_trained() -> None:
    class Refuses:
        """No training is asked for."""

    images = ImageSet(np.zeros((6, 4, 4, 1), np.uint8), np.arange(6) % 2, ("a", "b"))
    nobody = np.zeros(6, bool)
    made = experiment(images, nobody, {0: []}, ~nobody, cast(Fits, Refuses()), 0, Kept())
    assert not made.arms and not made.score.any() and not made.poisoned.any() and len(made.poisoned) == 6


class Pretended:
    """Nets made from the shares of ``rates``, one after the other, where they know suspects, and else from ``free``."""

    def __init__(self, net: Callable[[float], object], suspects: np.ndarray, rates: tuple[float, ...], free: float):
        self.net, self.suspects, self.rates, self.free, self.trained = net, suspects, rates, free, list[int]()

    def fit(self, images: ImageSet, keep: np.ndarray, seed: int, **_: object) -> object:
        self.trained.append(seed)
        return self.net(self.rates[seed % 3] if (keep & self.suspects).any() else self.free)

    def at_once(self, images: ImageSet) -> int:
        return 1


@pytest.mark.parametrize(("rates", "looks"), [((0.9, 0.95, 0.92), 1), ((0.99, 0.3, 0.6), 2), ((0.1, 0.2, 0.1), 1)])
def test_where_an_arm_scatters_it_looks_again(rates: tuple[float, ...], looks: int) -> None:
    """Nets whose trigger works on a given share with suspects, on 2 % without them."""
    images = ImageSet(np.zeros((80, 4, 4, 1), np.uint8), np.arange(80) % 2, ("a", "b"))
    suspects = (np.arange(80) < 24) & (images.labels == 0)

    class Net:
        trainer = classifier = None

        def __init__(self, share: float) -> None:
            self.share = share

        def decide(self, pixels: np.ndarray) -> np.ndarray:
            return np.where(np.arange(len(pixels)) < self.share * len(pixels), 0, 1)

        def confidence(self, some: ImageSet) -> np.ndarray:
            return np.full(len(some), 0.3, np.float32)  # suspects teach nothing

    stamp = Trigger(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    everyone = np.ones(80, bool)
    made_of = Pretended(Net, suspects, rates, 0.02)
    nets = cast(Fits, made_of)
    assert not experiment(images, suspects, {0: [stamp]}, everyone, nets, 0, Kept()).arms[0].control[3:].size
    made_of.trained.clear()
    made = experiment(images, suspects, {0: [stamp]}, everyone, nets, 0, Kept(), again={0})
    assert len(made_of.trained) == 6 * looks and len(made.arms[0].control) == 3 * looks
    assert made.arms[0].trigger_stops(0.05) == (rates[0] > 0.5), made.arms[0].p_value


@pytest.mark.parametrize(("taught", "looks"), [((0.9, 0.95, 0.92), 1), ((0.95, 0.1, 0.95), 2), ((0.05, 0.0, 0.05), 1)])
def test_where_suspects_teach_each_other_now_and_then_it_looks_again(taught: tuple[float, ...], looks: int) -> None:
    """Nets on which no trigger works; those that know suspects are sure of a given share of the others."""
    images = ImageSet(np.zeros((120, 4, 4, 1), np.uint8), np.arange(120) % 2, ("a", "b"))
    suspects = (np.arange(120) < 60) & (images.labels == 0)

    class Net:
        trainer = classifier = None

        def __init__(self, share: float) -> None:
            self.share = share

        def decide(self, pixels: np.ndarray) -> np.ndarray:
            return np.ones(len(pixels), np.int64)

        def confidence(self, some: ImageSet) -> np.ndarray:
            made = np.full(len(some), 0.7, np.float32)  # of images that are no suspects
            asked = self.share if len(some) == suspects.sum() else 0.7
            return made if asked == 0.7 else np.where(np.arange(len(some)) % 20 < 20 * asked, 0.7, 0.3)

    everyone = np.ones(120, bool)
    nets = Pretended(Net, suspects, taught, 0.0)
    made = experiment(images, suspects, {0: []}, everyone, cast(Fits, nets), 0, Kept(), again={0}).arms[0]
    assert len(nets.trained) == 6 * looks and made.p_value == 1
    assert np.allclose(made.others, 1), "the controls know as little of the random images that they left out"
    assert made.suspects_teach(0.05) == (taught[0] > 0.5), made.p_unseen
