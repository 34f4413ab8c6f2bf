"""A certificate beside its data: what was made up is told apart from what was computed; trials are replayed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_certificate import digits

from doorward.certification.certificate import Certificate, certificate_from_votes
from doorward.certification.certify import certify
from doorward.certification.recheck import caught, recheck
from doorward.certification.smoothing.montecarlo import Learner
from doorward.certification.smoothing.parts.adapters import EstimatorLearner, NoSettings
from doorward.certification.smoothing.trial_votes import read_trial_votes, write_trial_votes
from doorward.core.errors import DoorwardError
from doorward.verifier import verify

TRAIN, TEST = digits()
TRIALS = 400
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of flip smoothing with its trial votes beside it."""
    folder = tmp_path_factory.mktemp("honest")
    made = certify(
        TRAIN, TEST, "nearest-centroid", trials=TRIALS, alpha="0.01", seed=5, trial_votes=folder / "trial-votes.gz"
    )
    made.save(folder / "certificate.json")
    return folder / "certificate.json"


def votes_of(path: Path) -> np.ndarray:
    raw = gzip.decompress(path.with_name("trial-votes.gz").read_bytes())
    return np.frombuffer(raw, np.uint8).reshape(TRIALS, len(TEST)).copy()


def forge(honest: Path, folder: Path, votes: np.ndarray) -> Path:
    """A certificate whose votes, radii, hashes and file fit each other, but were not all computed."""
    true = Certificate.load(honest)
    sha256 = write_trial_votes(folder / "trial-votes.gz", [votes], TRIALS, len(TEST))
    counts = np.stack([(votes == k).sum(axis=0) for k in range(2)], axis=1).astype(np.int64)
    forged = certificate_from_votes(
        counts, trials=TRIALS, blocks=true.blocks, classes=true.classes, train_sha256=TRAIN.hash, alpha=true.alpha,
        test_sha256=TEST.hash, truth=TEST.labels, settings=true.settings, trial_votes=sha256,
    )  # fmt: skip
    forged.save(folder / "certificate.json")
    assert verify(folder / "certificate.json").valid
    return folder / "certificate.json"


def test_an_honest_certificate_passes_and_its_votes_are_those_of_its_trials(honest: Path) -> None:
    assert verify(honest).valid
    assert np.array_equal(
        np.stack([(votes_of(honest) == k).sum(axis=0) for k in range(2)], axis=1), Certificate.load(honest).votes
    )
    found = recheck(honest, TRAIN, TEST, replay=20)
    assert found.problems == () and len(set(found.replayed)) == 20 and max(found.replayed) < TRIALS == found.of
    assert recheck(honest, TRAIN, TEST, replay=20, seed=found.seed).replayed == found.replayed
    assert recheck(honest, TRAIN, TEST, replay=20).replayed != found.replayed
    assert len(recheck(honest, TRAIN, TEST, replay=10**6).replayed) == TRIALS


def test_what_is_kept_is_the_same_after_an_interruption(tmp_path: Path, honest: Path) -> None:
    def stop(done: int, *_: Any) -> None:
        if done >= 128:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"trials": TRIALS, "alpha": "0.01", "seed": 5, "store": tmp_path / "shards"}
    options["trial_votes"] = tmp_path / "trial-votes.gz"
    with pytest.raises(KeyboardInterrupt):
        certify(TRAIN, TEST, "nearest-centroid", watch=stop, **options)
    assert not options["trial_votes"].exists()
    fresh: list[int] = []
    certify(TRAIN, TEST, "nearest-centroid", watch=lambda done, *_: fresh.append(done), **options)
    again = certify(TRAIN, TEST, "nearest-centroid", **{**options, "store": None})
    assert again.json() == Certificate.load(honest).json()
    assert len(fresh) == 7 and options["trial_votes"].read_bytes() == honest.with_name("trial-votes.gz").read_bytes()


def test_votes_without_a_file_are_as_before(honest: Path) -> None:
    plain = certify(TRAIN, TEST, "nearest-centroid", trials=TRIALS, alpha="0.01", seed=5)
    assert plain.trial_votes is None and "trial_votes" not in plain.json()
    assert np.array_equal(plain.votes, Certificate.load(honest).votes)


def test_an_invented_share_of_trials_is_caught_as_often_as_is_said(tmp_path: Path, honest: Path) -> None:
    votes, rng = votes_of(honest), np.random.default_rng(1)
    false = np.sort(rng.choice(TRIALS, TRIALS // 5, replace=False))
    votes[false, 3] ^= 1
    path = forge(honest, tmp_path, votes)
    met = 0
    for seed in range(60):
        found = recheck(path, TRAIN, TEST, replay=5, seed=seed)
        hit = sorted(set(found.replayed) & set(false.tolist()))
        assert [int(p.split()[1].rstrip(":")) for p in found.problems] == hit
        assert all("1 of 30 votes" in p and "first image 3" in p for p in found.problems)
        met += bool(hit)
    expected = caught(Fraction(1, 5), 5)
    assert expected == pytest.approx(1 - 0.8**5) and abs(met / 60 - expected) < 0.2
    assert caught(Fraction(1, 10), 20) == pytest.approx(0.8784, abs=1e-4)


def test_votes_that_are_not_the_sum_of_the_trials_are_seen(tmp_path: Path, honest: Path) -> None:
    content = Certificate.load(honest)
    counts = content.votes.copy()
    counts[2] += (1, -1) if counts[2][1] else (-1, 1)
    forged = certificate_from_votes(
        counts, trials=TRIALS, blocks=content.blocks, classes=content.classes, train_sha256=TRAIN.hash,
        test_sha256=TEST.hash, alpha=content.alpha, truth=TEST.labels, settings=content.settings,
        trial_votes=content.trial_votes,
    )  # fmt: skip
    forged.save(tmp_path / "c.json")
    assert verify(tmp_path / "c.json").valid
    found = recheck(tmp_path / "c.json", TRAIN, TEST, replay=1, trial_votes=honest.with_name("trial-votes.gz"))
    assert "votes: 1 images" in found.problems[0] and "first image 2" in found.problems[0]


def test_a_file_that_is_not_the_one_that_is_bound_is_refused(tmp_path: Path, honest: Path) -> None:
    good = honest.with_name("trial-votes.gz").read_bytes()
    raw = gzip.decompress(good)
    other = bytearray(raw)
    other[7] ^= 1
    files = {
        "is not the file": gzip.compress(bytes(other)),
        "is cut short": gzip.compress(raw[:-1]),
        "is longer": gzip.compress(raw + b"\0" * (1 << 24)),
        "label 2": gzip.compress(b"\2" + raw[1:]),
        "expected the votes of all trials": b"no gzip",
        "end-of-stream": good[:-12],
    }
    for said, content in files.items():
        (tmp_path / "votes.gz").write_bytes(content)
        with pytest.raises(DoorwardError, match=said) as error:
            recheck(honest, TRAIN, TEST, replay=1, trial_votes=tmp_path / "votes.gz")
        assert "\n" not in str(error.value) and "votes.gz" in str(error.value)
    with pytest.raises(DoorwardError, match="regular file"):
        recheck(honest, TRAIN, TEST, replay=1, trial_votes=Path("/dev/zero"))
    with pytest.raises(DoorwardError, match="nowhere"):
        recheck(honest, TRAIN, TEST, replay=1, trial_votes=tmp_path / "nowhere")
    with pytest.raises(DoorwardError, match="at most"):
        read_trial_votes(tmp_path / "votes.gz", "", trials=10**9, images=10**6, classes=2)


def test_a_replay_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    certify(TRAIN, TEST, "nearest-centroid", trials=20, alpha="0.1").save(tmp_path / "old.json")
    certify(TRAIN, TEST, "mean-distance").save(tmp_path / "sure.json")
    mine = Learner("mine", NoSettings(), EstimatorLearner(_tree()))
    options: dict[str, Any] = {"trials": 20, "alpha": "0.1", "trial_votes": tmp_path / "trial-votes.gz"}
    certify(TRAIN, TEST, mine, **options).save(tmp_path / "mine.json")
    for name, said in (("old", "binds no file"), ("sure", "no trials to replay"), ("mine", "no method 'mine'")):
        with pytest.raises(DoorwardError, match=said):
            recheck(tmp_path / f"{name}.json", TRAIN, TEST, replay=3)
    assert recheck(tmp_path / "old.json", TRAIN, TEST).problems == ()
    assert recheck(tmp_path / "mine.json", TRAIN, TEST, replay=3, learner=mine).problems == ()


def _tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_features=5)


def test_a_certificate_that_does_not_verify_is_not_compared(tmp_path: Path, honest: Path) -> None:
    true = Certificate.load(honest)
    replace(true, radii=true.radii + 1).save(tmp_path / "c.json")
    assert "radii" in recheck(tmp_path / "c.json", TRAIN, TEST).problems[0]


def test_other_data_are_seen(honest: Path) -> None:
    flipped = replace(TEST, labels=1 - TEST.labels)
    assert "test_sha256" in recheck(honest, TRAIN, flipped).problems[0]
    assert "train_sha256" in recheck(honest, TRAIN.subset(np.arange(39)), TEST).problems[0]


def test_true_labels_and_settings_that_were_made_up_are_seen(tmp_path: Path, honest: Path) -> None:
    true = Certificate.load(honest)
    changes: dict[str, dict[str, Any]] = {
        "true labels": {"truth": 1 - TEST.labels},
        "task_sha256": {"settings": {**true.settings, "task_sha256": "0" * 64}},
        "cells": {
            "blocks": tuple(replace(b, cells=(b.cells or 0) * s) for b, s in zip(true.blocks, (6, 2, 3), strict=True))
        },
    }
    for said, change in changes.items():
        replace(true, **change).save(tmp_path / "c.json")
        assert verify(tmp_path / "c.json").valid, said
        assert said in recheck(tmp_path / "c.json", TRAIN, TEST).problems[0]


@pytest.mark.parametrize("method", ["nearest-neighbours", "mean-distance"])
def test_deterministic_evidence_that_could_be_but_is_not_is_seen(tmp_path: Path, method: str) -> None:
    """Evidence of other images of the same kind is possible, so only the data tell."""
    other, _ = digits(seed=9)
    settings = {"k": 9} if method == "nearest-neighbours" else {"blur": 1}
    true = certify(TRAIN, TEST, method, settings=settings)
    true.save(tmp_path / "c.json")
    assert recheck(tmp_path / "c.json", TRAIN, TEST).problems == ()
    made_up = replace(certify(other, TEST, method, settings=settings), train_sha256=TRAIN.hash)
    made_up.save(tmp_path / "c.json")
    assert verify(tmp_path / "c.json").valid
    problems = recheck(tmp_path / "c.json", TRAIN, TEST).problems
    assert any("evidence" in p for p in problems), problems
