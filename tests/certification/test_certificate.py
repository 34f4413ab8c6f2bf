"""Certificates: from votes to radii, scoring, region, files; and the verb itself."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import doorward
from doorward.certification.certificate import Certificate, certificate_from_votes
from doorward.certification.certify import certify
from doorward.certification.smoothing.radius import Block
from doorward.certification.smoothing.votes import ABSTAIN
from doorward.certification.tightness import attack_search
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet

BLOCKS = (
    Block("training pixels", Fraction(9, 10), 2, 78_400),
    Block("training labels", Fraction(9, 10), 2, 100),
    Block("test pixels", Fraction(9, 10), 2, 784),
)


def from_votes(top: list[int], truth: list[int] | None = None, **changes: Any) -> Certificate:
    votes = np.array([[v, 10_000 - v] for v in top])
    values: dict[str, Any] = {
        "trials": 10_000,
        "blocks": BLOCKS,
        "classes": ("1", "7"),
        "train_sha256": "a" * 64,
        "test_sha256": "b" * 64,
        "truth": None if truth is None else np.array(truth),
        "settings": {"seed": 3},
    }
    return certificate_from_votes(votes, **{**values, **changes})


def digits(seed: int = 0, train: int = 40, test: int = 30) -> tuple[ImageSet, ImageSet]:
    """Two noisy pictures of 8 x 8 pixels."""
    rng = np.random.default_rng(seed)
    pictures = rng.random((2, 64)) < 0.4

    def draw(count: int, name: str) -> ImageSet:
        labels = np.arange(count, dtype=np.int64) % 2
        on = pictures[labels] ^ (rng.random((count, 64)) < 0.12)
        return ImageSet((on * 200).astype(np.uint8).reshape(-1, 8, 8, 1), labels, ("left", "right"), name)

    return draw(train, "made-up-train"), draw(test, "made-up-test")


def test_votes_become_labels_and_radii() -> None:
    c = from_votes([5000, 5165, 5166, 9514, 9515, 9961, 9962, 10_000, 485, 38])
    assert c.predicted.tolist() == [ABSTAIN, ABSTAIN, 0, 0, 0, 0, 0, 0, 1, 1]
    assert c.radii.tolist() == [ABSTAIN, ABSTAIN, 0, 0, 1, 1, 2, 2, 1, 2]


def test_the_joint_statement_costs_what_bonferroni_says() -> None:
    c = from_votes([9514, 9515, 9550, 9551, 9972, 9973] + [5000] * 994)
    assert c.radii[:6].tolist() == [0, 1, 1, 1, 2, 2]
    assert c.joint_radii[:6].tolist() == [0, 0, 0, 1, 1, 2]
    assert (c.joint_radii <= c.radii).all()


def test_abstaining_is_never_right() -> None:
    c = from_votes([10_000, 5000, 9515, 0], truth=[0, 0, 1, 1])
    assert [c.certified_accuracy(r).hits for r in range(4)] == [2, 2, 2, 0]
    assert c.clean_accuracy().hits == 2 and c.abstained() == 1
    assert c.certified_accuracy(-1).hits == 2
    assert replace(c, truth=np.array([0, ABSTAIN, 1, 1])).certified_accuracy(-1).hits == 2
    assert [rate.hits for rate in c.curve()] == [2, 2, 2]


def test_scoring_needs_the_truth() -> None:
    with pytest.raises(DoorwardError, match="true labels"):
        from_votes([10_000]).certified_accuracy(0)


def test_region_of_equal_noise_is_the_simplex_and_of_other_noise_is_not() -> None:
    c = from_votes([9962])
    assert set(c.region(0)) == {s for s in np.ndindex(3, 3, 3) if sum(s) == 2}
    loud = (BLOCKS[0], replace(BLOCKS[1], keep=Fraction(6, 10)), BLOCKS[2])
    region = from_votes([9962], blocks=loud).region(0)
    assert from_votes([9962], blocks=loud).radii[0] == 2
    assert max(split[1] for split in region) > 10
    assert from_votes([5000]).region(0) == ()


def test_a_saved_certificate_is_read_as_it_was(tmp_path: Path) -> None:
    train, test = digits()
    for c in (from_votes([9962, 100], truth=[0, 1]), certify(train, test, "nearest-neighbours", settings={"k": 9})):
        c.save(tmp_path / "certificate.json")
        again = Certificate.load(tmp_path / "certificate.json")
        assert again.json() == c.json()
        assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"format": "doorward-certificate-1"}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "certificate.json").write_text(text)
    with pytest.raises(DoorwardError, match=r"certificate\.json"):
        Certificate.load(tmp_path / "certificate.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trials": 9_999}, "fit 9999 trials"),
        ({"trials": 0}, "trials"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 1.5}, "alpha"),
        ({"classes": ("1",)}, "one column per class"),
        ({"blocks": ()}, "noise blocks"),
    ],
)
def test_votes_that_do_not_fit_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DoorwardError, match=said):
        from_votes([9_000], **change)


def test_one_class_is_refused() -> None:
    with pytest.raises(DoorwardError, match="two classes"):
        certificate_from_votes(
            np.array([[5]]), trials=5, blocks=BLOCKS, classes=("1",), train_sha256="", test_sha256=""
        )


def test_the_verb_can_be_called_and_certifies_surely() -> None:
    train, test = digits()
    c = doorward.certify(train, test, "mean-distance", settings={"blur": 0})
    assert c.method == "mean-distance" and c.trials == 0 and c.alpha == 0
    assert c.certified_accuracy(2).value > 0.9
    assert (c.radii == c.joint_radii).all()
    assert (c.train_sha256, c.test_sha256) == (train.hash, test.hash)


def test_the_verb_connects_the_votes() -> None:
    train, test = digits()
    c = certify(train, test, "nearest-centroid", keep=0.9, trials=300, alpha=0.01, seed=1, device="cpu")
    assert c.votes.sum(axis=1).tolist() == [300] * len(test)
    assert c.alpha == Fraction(1, 100) and c.blocks[0].cells == 40 * 64 and c.blocks[2].cells == 64
    assert abs(c.blocks[0].keep - Fraction(9, 10)) < Fraction(1, 2**32)
    assert c.certified_accuracy(1).value > 0.8


def test_a_region_of_a_deterministic_certificate_holds_its_radius() -> None:
    train, test = digits()
    for method in ("nearest-neighbours", "mean-distance"):
        c = certify(train, test, method, settings={"k": 15} if method == "nearest-neighbours" else None)
        for image in range(5):
            radius = int(c.radii[image])
            region = c.region(image)
            assert radius >= 1
            for split in [(radius, 0, 0), (0, radius, 0), (0, 0, radius), (0, 1, radius - 1)]:
                assert any(all(a <= b for a, b in zip(split, top, strict=True)) for top in region)


@pytest.mark.parametrize("method", ["nearest-neighbours", "mean-distance"])
@pytest.mark.parametrize("plain", [True, False])
def test_attacks_that_are_found_do_change_the_label(method: str, plain: bool) -> None:
    train, test = digits()
    settings: dict[str, Any] = {"blur": 0, "clip": 100} if plain else {}
    if method == "nearest-neighbours":
        settings = {"k": 15, "balanced": not plain, "centre": 0 if plain else 50}
    c = certify(train, test, method, settings=settings)
    found = attack_search(train, test, c)
    for image in range(len(test)):
        labels, pixels = train.labels.copy(), test.pixels[image : image + 1].copy()
        for row, new in found.labels[image]:
            assert labels[row] != new
            labels[row] = new
        flat = pixels.reshape(-1)
        flat[found.pixels[image]] = 255 - flat[found.pixels[image]]
        cells = len(found.labels[image]) + len(set(found.pixels[image]))
        assert cells == found.cells[image] > c.radii[image]
        then = certify(
            replace(train, labels=labels), ImageSet(pixels, test.labels[:1], test.classes), method, settings=settings
        )
        assert then.predicted[0] != c.predicted[image]
    gaps = found.gaps()
    assert sum(gaps.values()) == len(test) and min(gaps) >= 0
    close = sum(n for gap, n in gaps.items() if gap <= (1 if plain or method == "mean-distance" else 4))
    assert close >= 0.6 * len(test)


def test_an_attack_needs_the_same_data() -> None:
    train, test = digits()
    c = certify(train, test, "mean-distance")
    with pytest.raises(DoorwardError, match="other images"):
        attack_search(test, train, c)
    with pytest.raises(DoorwardError, match="flip-smoothing"):
        attack_search(train, test, from_votes([9_000]))


def test_sets_that_do_not_belong_together_are_refused() -> None:
    train, test = digits()
    with pytest.raises(DoorwardError, match="expected \\['left', 'right'\\]"):
        certify(train, replace(test, classes=("a", "b")), "mean-distance")
    with pytest.raises(DoorwardError, match="images of shape"):
        certify(train, replace(test, pixels=test.pixels[:, :4]), "mean-distance")
    with pytest.raises(DoorwardError, match="one class"):
        certify(train.subset(train.labels == 0), test, "mean-distance")
    with pytest.raises(DoorwardError, match="256 values"):
        certify(train, test, "mean-distance", binarise=None)
    with pytest.raises(DoorwardError, match="binarise = 300"):
        certify(train, test, "mean-distance", binarise=300)
    with pytest.raises(DoorwardError, match="no method"):
        certify(train, test, "magic")
