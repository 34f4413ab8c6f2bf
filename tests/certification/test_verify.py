"""The independent checker: agrees with the library, and sees tampering with every field."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doorward.certification.certificate import Certificate, certificate_from_votes, content_hash
from doorward.certification.certify import certify
from doorward.certification.smoothing.radius import Block, split_threshold, threshold
from doorward.certification.smoothing.votes import votes_above
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.verifier import smoothing as checker
from doorward.verifier import verify


def smoothing(alpha: Fraction = Fraction(1, 1000), label_keep: Fraction = Fraction(9, 10)) -> Certificate:
    votes = np.array([[10_000, 0], [9_962, 38], [9_961, 39], [20, 9_980], [5_100, 4_900], [9_515, 400]])
    keep = Fraction(9, 10)
    blocks = (
        Block("training pixels", keep, 2, 78_400),
        Block("training labels", label_keep, 2, 100),
        Block("test pixels", keep, 2, 784),
    )
    return certificate_from_votes(
        votes, trials=10_000, blocks=blocks, classes=("1", "7"), train_sha256="a" * 64, test_sha256="b" * 64,
        alpha=alpha, truth=np.array([0, 0, 0, 1, 1, 0]), settings={"learner": "two-layer", "rate": 0.5, "seed": 1},
    )  # fmt: skip


def sure(method: str, settings: dict[str, Any] | None = None, seed: int = 0, noise: float = 0.1) -> Certificate:
    rng = np.random.default_rng(seed)
    pictures = rng.random((2, 36)) < 0.4
    labels = np.arange(40, dtype=np.int64) % 2
    on = pictures[labels] ^ (rng.random((40, 36)) < noise)
    images = ImageSet((on * 255).astype(np.uint8).reshape(-1, 6, 6, 1), labels, ("a", "b"))
    train, test = images.subset(np.arange(30)), images.subset(np.arange(30, 40))
    usual = {"k": 7} if method == "nearest-neighbours" else {"blur": 1}
    return certify(train, test, method, settings=usual if settings is None else settings)


ALL = {
    "smoothing": smoothing(),
    "two-noises": smoothing(label_keep=Fraction(3, 4)),
    "nearest-neighbours": sure("nearest-neighbours"),
    "mean-distance": sure("mean-distance"),
}


def write(path: Path, content: dict[str, Any], rehash: bool = False) -> Path:
    content = {k: v for k, v in content.items() if k != "sha256" or not rehash}
    if rehash:
        content["sha256"] = content_hash(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ALL)
def test_true_certificates_are_valid(tmp_path: Path, name: str) -> None:
    ALL[name].save(tmp_path / "certificate.json")
    report = verify(tmp_path / "certificate.json", ALL[name].train_sha256, ALL[name].test_sha256)
    assert report.valid and report.problems == ()
    assert report.images == len(ALL[name]) and report.method == ALL[name].method


MANY = [("nearest-neighbours", {"k": k, "balanced": b, "centre": c}) for k in (3, 9) for b in (0, 1) for c in (0, 70)]
MANY += [("mean-distance", {"blur": b, "clip": c, "most": m}) for b, c, m in ((0, 100, 64), (0, 20, 64), (1, 50, 2))]


@pytest.mark.parametrize(("method", "settings"), MANY)
def test_it_agrees_in_many_worlds(tmp_path: Path, method: str, settings: dict[str, Any]) -> None:
    radii = set()
    for seed in range(6):
        certificate = sure(method, settings, seed, noise=0.05 + 0.06 * seed)
        certificate.save(tmp_path / "c.json")
        assert verify(tmp_path / "c.json").problems == ()
        radii |= set(certificate.radii.tolist())
    assert len(radii) > 1


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every leaf, but to the first three items of a list only."""
    if isinstance(value, (dict, list)) and value:
        for key in value if isinstance(value, dict) else range(min(3, len(value))):
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def tampered(content: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    old = inner[path[-1]]
    inner[path[-1]] = old + 1 if isinstance(old, int) else [7] if old in (None, [], {}) else str(old)[::-1] + "1"
    return changed


@pytest.mark.parametrize("name", ALL)
def test_any_changed_field_is_seen(tmp_path: Path, name: str) -> None:
    content = ALL[name].json()
    paths = list(leaves(content))
    assert {path[0] for path in paths} == set(content)
    for path in paths:
        assert not verify(write(tmp_path / "c.json", tampered(content, path))).valid, path
    for key in content:
        gone = {k: v for k, v in content.items() if k != key}
        assert not verify(write(tmp_path / "c.json", gone)).valid, key


@pytest.mark.parametrize("name", ALL)
def test_a_new_hash_does_not_help(tmp_path: Path, name: str) -> None:
    """What is derived stays derived, whoever computes the hash."""
    content = ALL[name].json()
    for path in leaves(content):
        if path[0] in ("predicted", "radii", "joint_radii"):
            assert not verify(write(tmp_path / "c.json", tampered(content, path), rehash=True)).valid, path
    for key in ("predicted", "radii", "joint_radii"):
        for longer in (content[key][:-1], [*content[key], 0]):
            assert not verify(write(tmp_path / "c.json", {**content, key: longer}, rehash=True)).valid
    with_text = {**content, "radii": [str(r) for r in content["radii"]]}
    assert not verify(write(tmp_path / "c.json", with_text, rehash=True)).valid
    with_floats = {**content, "radii": [float(r) for r in content["radii"]]}
    assert not verify(write(tmp_path / "c.json", with_floats, rehash=True)).valid


def edited(name: str, **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ALL[name].json()), **changes}


def test_what_the_radii_follow_from_cannot_be_moved(tmp_path: Path) -> None:
    c = ALL["smoothing"].json()
    wrong = [
        edited("smoothing", votes=[[9_961, 39], *c["votes"][1:]]),  # fewer votes, same radius
        edited("smoothing", votes=[*c["votes"][:2], [9_962, 38], *c["votes"][3:]]),  # more votes, same radius
        edited("smoothing", votes=[[10_001, 0], *c["votes"][1:]]),
        edited("smoothing", votes=[[10_005, -5], *c["votes"][1:]]),
        edited("smoothing", votes=c["votes"][:-1]),
        edited("smoothing", trials=10_100),
        edited("smoothing", alpha="1/100000"),
        edited("smoothing", alpha="1/1"),
        edited("smoothing", noise=[{**b, "keep": "19/20"} for b in c["noise"]]),
        edited("smoothing", noise=[{**b, "keep": "1/2"} for b in c["noise"]]),
        edited("smoothing", noise=[]),
        edited("smoothing", classes=["1"]),
        edited("smoothing", truth=[0, 0, 0, 1, 1, 2]),
        edited("smoothing", method="mean-distance"),
        edited("mean-distance", trials=5),
        edited("mean-distance", method="nearest-neighbours"),
    ]
    for content in wrong:
        assert not verify(write(tmp_path / "c.json", content, rehash=True)).valid


@pytest.mark.parametrize("method", ["nearest-neighbours", "mean-distance"])
def test_evidence_that_gives_another_radius_is_seen(tmp_path: Path, method: str) -> None:
    content = ALL[method].json()
    evidence = copy.deepcopy(content["evidence"])
    if method == "mean-distance":
        evidence["score"][0] //= 3
    else:
        evidence["distances"][0] = evidence["distances"][0][::-1]
    assert not verify(write(tmp_path / "c.json", {**content, "evidence": evidence}, rehash=True)).valid


def test_only_the_data_tell_what_was_made_up_as_a_whole(tmp_path: Path) -> None:
    """Said openly: names, settings and true labels with a new hash pass, unless the data are at hand."""
    data = {"train_sha256": "c" * 64, "test_sha256": "d" * 64}
    content = edited("smoothing", settings={"learner": "another"}, data=data)
    path = write(tmp_path / "c.json", content, rehash=True)
    assert verify(path).valid
    report = verify(path, train_sha256="a" * 64)
    assert not report.valid and "train_sha256" in report.problems[0]


@pytest.mark.parametrize("text", ["", "{", "\udcff", "[" * 100_000])
def test_what_is_no_json_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DoorwardError, match=r"c\.json") as error:
        verify(tmp_path / "c.json")
    assert "\n" not in str(error.value)
    with pytest.raises(DoorwardError, match="nowhere"):
        verify(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["[]", "{}", "3", "null", '{"format": 1}'])
def test_other_json_is_not_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    assert not verify(tmp_path / "c.json").valid


def test_two_algorithms_agree_on_thresholds() -> None:
    keep, other = Fraction(7, 10), Fraction(2, 5)
    for radius in range(7):
        assert checker._threshold([(keep, 2)] * radius) == threshold(radius, keep)
        assert checker._threshold([(other, 5)] * radius) == threshold(radius, other, 5)
    blocks = [Block("a", keep), Block("b", other, 5), Block("c", Fraction(1, 5), 256)]
    for split in ((1, 1, 0), (2, 1, 1), (0, 3, 2)):
        cells = [(b.keep, b.domain) for b, r in zip(blocks, split, strict=True) for _ in range(r)]
        assert checker._threshold(cells) == split_threshold(split, blocks)


def test_two_algorithms_agree_on_votes() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(150):
        trials = int(rng.choice([1, 2, 13, 100, 1_000, 10_000, 1_000_000]))
        t = Fraction(int(rng.integers(500, 1000)), 1000) if rng.random() < 0.7 else threshold(int(rng.integers(5)), 0.9)
        alpha = Fraction(1, int(rng.choice([2, 20, 1000, 10**6, 10**30])))
        assert checker._votes(trials, t, alpha) == votes_above(trials, t, alpha), (trials, t, alpha)
        found += votes_above(trials, t, alpha) is not None
    assert found > 60
    start = time.perf_counter()
    half, alpha = Fraction(1, 2), Fraction(1, 1000)
    assert checker._votes(10**8, half, alpha) == votes_above(10**8, half, alpha)
    assert time.perf_counter() - start < 3


def test_it_is_small_and_stands_alone() -> None:
    files = sorted(Path(checker.__file__).parent.glob("*.py"))
    lengths = [len(path.read_text().splitlines()) for path in files]
    assert max(lengths) <= 200 and sum(lengths) <= 700
    code = "import sys, doorward.verifier; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    ours = [name for name in loaded.split() if name.split(".")[0] in ("doorward", "torch", "numpy", "scipy")]
    own = ["doorward.verifier", *(f"doorward.verifier.{p.stem}" for p in files if p.stem != "__init__")]
    assert ours == ["doorward", "doorward.core", "doorward.core.errors", "doorward.core.opening", *own]
