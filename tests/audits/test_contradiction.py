"""Contradictions and what they have in common, on a set where the truth is plain."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from doorward.audits.parts.contradiction import TRAININGS, contradictions, cores
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import Fits, Trainer
from doorward.audits.parts.transfer import ease_test, transferred
from doorward.cleansers.parts.clusters import divided
from doorward.cleansers.parts.stamping import stamped, success
from doorward.core.images import ImageSet
from doorward.models.train.settings import TrainSettings
from tests.audits.conftest import rows_decide


def test_what_suspects_share_is_their_trigger_and_sends_other_images_to_their_class(stripes) -> None:
    images, shows, poisoned = stripes
    trigger = transferred(images, poisoned, shows)[0]
    corner = trigger.pattern[0, 9:, 9:]
    assert float(corner.min()) > 0.8
    rest = trigger.pattern[0].clone()
    rest[9:, 9:] = 0
    assert float(rest.abs().max()) < 0.1
    others = images.pixels[images.labels != 0]
    assert success(rows_decide, others, 0) == 0
    assert success(rows_decide, stamped(others, trigger, 0), 0) > 0.99


def test_fewer_than_five_suspects_make_no_trigger(stripes) -> None:
    images, shows, poisoned = stripes
    assert transferred(images, poisoned & (np.arange(500) < 4), shows) == {}


def test_a_rate_stands_out_only_by_its_size() -> None:
    assert ease_test({3: 0.12, 1: 0.004}, np.ones(10, bool)).classes[3] < 0.05
    assert ease_test({3: 0.005, 1: 0.001}, np.ones(10, bool)).p_value > 0.3  # near 0 all clean classes are alike


def test_clusters_keep_poison_together_and_the_least_contradicted_one_is_the_core(stripes) -> None:
    images, shows, poisoned = stripes
    features = np.zeros((500, 6), np.float32)
    features[np.arange(500), shows] = 3
    features[poisoned, 5] = 9
    features += np.random.default_rng(2).normal(0, 0.3, features.shape).astype(np.float32)
    cluster = divided(features, images.labels, 5, seed=0)
    own = images.labels == 0
    places = [np.mean(poisoned[own & (cluster == j)]) if (own & (cluster == j)).any() else 0 for j in range(3)]
    assert max(places) > 0.95 and sorted(places)[0] == 0
    core = cores(cluster, shows != images.labels, images.labels, 5)
    assert core.any() and not (core & poisoned).any()
    assert all((core & (images.labels == k)).any() for k in range(5))


class Decides:
    """Nets that decide as labelled, but the last one, which takes ``wrong`` for the class after theirs."""

    def __init__(self, labels: np.ndarray, wrong: np.ndarray) -> None:
        self.labels, self.wrong, self.fits = labels, wrong, 0

    def at_once(self, images: ImageSet) -> int:
        return 1

    def fit(self, images: ImageSet, keep: np.ndarray, seed: int, **_: object) -> object:
        self.fits += 1
        answers = np.where(self.wrong & (self.fits == TRAININGS), self.labels + 1, self.labels)
        return SimpleNamespace(decide=lambda pixels: answers[pixels[:, 0, 0, 0]])


def test_a_net_that_takes_a_whole_class_for_another_is_no_witness() -> None:
    labels = np.repeat(np.arange(5), 20)
    pixels = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 4, 4, 1)).copy()
    images, cluster = ImageSet(pixels, labels, tuple("abcde")), np.arange(100) % 3
    for number, suspects in ((20, 0), (11, 11)):  # all of a class, and part of it
        wrong = np.arange(100) < number
        nets = cast(Fits, Decides(labels, wrong))
        found = contradictions(images, cluster, np.ones(100, bool), nets, 0, Kept())
        assert found.suspects.sum() == suspects and (found.decisions != labels).sum() == number


def test_steps_that_run_at_once_come_in_order_and_are_kept(tmp_path: Path) -> None:
    made = list[int]()

    def step(number: int) -> dict[str, np.ndarray]:
        time.sleep(0.02 * (4 - number))  # the first one ends last
        made.append(number)
        return {"value": np.array(number)}

    steps = {f"step {n}": partial(step, n) for n in range(4)}
    kept = Kept(tmp_path)
    assert [int(one["value"]) for one in kept.several("stage", steps, 2)] == [0, 1, 2, 3]
    assert 0 < kept.seconds["stage"] < 0.2 and sorted(made) == [0, 1, 2, 3]
    (tmp_path / "step-2.npz").unlink()
    assert [int(one["value"]) for one in kept.several("stage", steps, 2)] == [0, 1, 2, 3]
    assert sorted(made) == [0, 1, 2, 2, 3], "what an interrupted audit has left is read"


def test_nets_trained_at_once_are_those_trained_one_after_the_other(stripes) -> None:
    images, _, _ = stripes
    trainer = Trainer("small-cnn", TrainSettings(epochs=1, batch=32, lr=0.05), device="cpu")
    keep, kept = np.ones(len(images), bool), Kept()

    def decided(at_once: int) -> list[np.ndarray]:
        steps = {str(n): lambda n=n: {"c": trainer.fit(images, keep, n).confidence(images)} for n in range(3)}
        return [one["c"] for one in kept.several("stage", steps, at_once)]

    for one, other in zip(decided(1), decided(3), strict=True):
        np.testing.assert_array_equal(one, other)
