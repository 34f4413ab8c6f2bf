"""Forged certificates, with a hash of their own: what cannot be is refused, and no file keeps the checker busy."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_verify import ALL, smoothing, write

from doorward.certification.certificate import content_hash
from doorward.core.errors import DoorwardError
from doorward.verifier import Report, verify

FREE = ("classes", "truth", "sha256")  # names and true labels can be anything that fits
NEVER: list[Any] = [-2, 1 << 62, 10**300, True, False, 1.0, 0.5, "1", "x" * 70, "1/0", "1e-30000000", [[[]]], {"a": 1}]


def put(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def forged(tmp_path: Path, content: dict[str, Any]) -> Report:
    return verify(write(tmp_path / "c.json", content, rehash=True))


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every object, list and leaf, to the first and the last item of a list only."""
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else {0: 0, len(value) - 1: 0} if value else ():
            yield from fields(value[key], (*path, key))


def impossible(content: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """One field at a time: of another type, out of any range, absent, one too many."""
    for path in fields(content):
        if path[0] in FREE or path[0] == "settings":
            continue
        for value in (*NEVER, None):
            here = content
            for key in path:
                here = here[key]
            if value != here and not (value is None and path[-1] == "cells"):
                yield path, put(content, path, value)
        if isinstance(here, list) and here:
            yield path, put(content, path, here[:-1])
            yield path, put(content, path, [*here, here[-1]])
        if isinstance(here, dict):
            yield path, put(content, path, {**here, "more": 1})
            for key in here:
                yield path, put(content, path, {k: v for k, v in here.items() if k != key})


def test_whatever_cannot_be_is_refused_although_its_hash_fits(tmp_path: Path) -> None:
    tried = 0
    for name, certificate in ALL.items():
        for path, content in impossible(certificate.json()):
            report = forged(tmp_path, content)
            assert not report.valid and report.meaning == {}, (name, path)
            if path[0] not in ("predicted", "radii", "joint_radii"):  # it would not help to derive these anew
                assert "do not follow" not in report.problems[0], (name, path, report.problems)
            assert "malformed" not in report.problems[0], (name, path, report.problems)
            tried += 1
    assert tried > 1000


@pytest.mark.parametrize("name", ALL)
def test_names_truth_and_settings_that_cannot_be_are_refused_too(tmp_path: Path, name: str) -> None:
    content = ALL[name].json()
    wrong: list[tuple[tuple[Any, ...], Any]] = [
        *((("classes", 0), v) for v in (1, None, [], 0.5)),
        *((("truth", 0), v) for v in (-1, 2, True, "0", None, 1.0)),
        *((("truth",), v) for v in ([], "0", {}, content["truth"][:-1])),
        *((("settings",), v) for v in (None, [], "x")),
        *((("settings", "seed"), v) for v in (-1, 1 << 64, True, "1", 0.5)),
        *((("settings", "binarise"), v) for v in (0, 256, True, "1")),
        *((("settings", "shape"), v) for v in ([], [1, 6], [1, 0, 6], [1, 6, -6], "1", [1, 6, 1 << 40])),
        (("settings", "task_sha256"), "x"),
    ]
    for path, value in wrong:
        assert not forged(tmp_path, put(content, path, value)).valid, (path, value)


def evidence(name: str, **changes: Any) -> dict[str, Any]:
    content = copy.deepcopy(ALL[name].json())
    content["evidence"].update(changes)
    return content


def test_evidence_that_no_images_can_give_is_refused(tmp_path: Path) -> None:
    nearest, mean = ALL["nearest-neighbours"].json()["evidence"], ALL["mean-distance"].json()["evidence"]
    rows = nearest["distances"]
    wrong = [
        evidence("nearest-neighbours", distances=[[[d + 37 for d in row] for row in image] for image in rows]),
        evidence("nearest-neighbours", distances=[[row[:-1] for row in image] for image in rows]),
        evidence("nearest-neighbours", distances=[[[0, *row[1:]][::-1] for row in image] for image in rows]),
        evidence("nearest-neighbours", sums=[[0] * len(row) for row in nearest["sums"]]),
        evidence("nearest-neighbours", sums=[row[:-1] for row in nearest["sums"]]),
        evidence("nearest-neighbours", sums=[[36 * 31] * len(row) for row in nearest["sums"]]),
        evidence("nearest-neighbours", sums=[]),
        evidence("nearest-neighbours", counts=[30, 0]),
        evidence("nearest-neighbours", counts=[1, 1]),
        evidence("nearest-neighbours", k=8),
        evidence("nearest-neighbours", k=9),
        evidence("nearest-neighbours", most=5),
        evidence("mean-distance", training_pixel_harm=[0] * 66),
        evidence("mean-distance", training_pixel_harm=[1] * 66),
        evidence("mean-distance", training_pixel_harm=[h // 2 for h in mean["training_pixel_harm"]]),
        evidence("mean-distance", score=[s * 1000 for s in mean["score"]]),
        evidence("mean-distance", score=[1 << 61] * 10),
        evidence("mean-distance", pixel_harm=[[[0] * len(r) for r in rows] for rows in mean["pixel_harm"]]),
        evidence("mean-distance", label_harm=[[5, *row[1:]] for row in mean["label_harm"]]),
        evidence("mean-distance", pixel_harm=[[[1] * len(r) for r in rows] for rows in mean["pixel_harm"]]),
        evidence("mean-distance", pixel_harm=[rows[::-1] for rows in mean["pixel_harm"]]),
        put(ALL["mean-distance"].json(), ("settings", "blur"), 2),
        put(ALL["mean-distance"].json(), ("settings", "clip"), 100),
        put(ALL["nearest-neighbours"].json(), ("settings", "centre"), 0),
    ]
    for place, content in enumerate(wrong):
        report = forged(tmp_path, content)
        assert not report.valid and "do not follow" not in report.problems[0], (place, report)


def test_pixels_that_take_nothing_off_a_score_are_refused(tmp_path: Path) -> None:
    """Label and radius follow from the flips of labels alone; but a score is made of what its pixels can take off."""

    def content(pixel: int, score: int = 60_001) -> dict[str, Any]:
        evidence = {
            "most": 64, "score": [score], "label_harm": [[0, 30_000, 60_000, 90_000]],
            "pixel_harm": [[[pixel * t for t in range(4 - f)] for f in range(4)]],
            "training_pixel_harm": [100 * (100 + min(100, 2 * f)) + 50 for f in range(66)],
        }  # fmt: skip
        settings = {"blur": 0, "clip": 1, "most": 64, "shape": [1, 28, 28]}
        fields = {"predicted": [0], "radii": [2], "joint_radii": [2], "truth": [0], "votes": [[]], "settings": settings}
        return {**ALL["mean-distance"].json(), "evidence": evidence, **fields}

    assert forged(tmp_path, content(77)).valid
    assert "pixel_harm" in forged(tmp_path, content(76)).problems[0]  # 784 of them cannot make up 60,001
    assert "pixel_harm" in forged(tmp_path, content(5001)).problems[0]  # a weight at its cap is worth 5,000


def test_noise_that_is_not_of_the_three_blocks_is_refused(tmp_path: Path) -> None:
    content = ALL["smoothing"].json()
    noise = content["noise"]
    keeps = ("1/2", "1/3", ".9", "9/10 ", "-9/-10", "1/1", "0/1", "90/1", "٩/10", "1/0", "9/10\n")
    wrong = [
        noise[:2], [*noise, noise[0]], noise[::-1], noise * 7, [noise[1]] * 3,
        [{**b, "name": "training pixels"} for b in noise],
        [{**b, "domain": 3} for b in noise], [noise[0], noise[1], {**noise[2], "domain": 256}],
        [{**b, "cells": 5} for b in noise], [{**noise[0], "cells": 0}, *noise[1:]],
        *([{**b, "keep": k} for b in noise] for k in keeps),
    ]  # fmt: skip
    for place, blocks in enumerate(wrong):
        report = forged(tmp_path, {**content, "noise": blocks})
        assert not report.valid and "do not follow" not in report.problems[0], (place, report)


def test_a_weak_certificate_is_valid_and_says_so(tmp_path: Path) -> None:
    from fractions import Fraction

    smoothing(Fraction(999, 1000)).save(tmp_path / "c.json")
    report = verify(tmp_path / "c.json")
    assert report.valid and report.warnings[0].startswith("only 0.1 % confidence")
    assert report.meaning["confidence"] == "0.1 %" and report.meaning["alpha"] == "999/1000"
    smoothing().save(tmp_path / "c.json")
    report = verify(tmp_path / "c.json")
    assert [w.split(" have ")[0] for w in report.warnings] == ["1 of 6 images"]
    assert report.meaning["confidence"] == "99.9 %" and report.meaning["noise"]["test pixels"]["keep"] == "9/10"
    assert report.meaning["data"]["train_sha256"] == "a" * 64 and report.meaning["trials"] == 10_000


HOSTILE = {
    "a key twice": '{"radii": [99, 99], ',
    "NaN": '{"more": NaN, ',
    "a long number": '{"more": ' + "9" * 5000 + ", ",
    "deep": '{"more": ' + "[" * 100 + "]" * 100 + ", ",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_json_that_may_be_read_in_two_ways_is_refused(tmp_path: Path, what: str) -> None:
    text = json.dumps(ALL["smoothing"].json())
    (tmp_path / "c.json").write_text(HOSTILE[what] + text[1:])
    with pytest.raises(DoorwardError, match=r"c\.json") as error:
        verify(tmp_path / "c.json")
    assert "\n" not in str(error.value)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    start = time.perf_counter()
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(DoorwardError, match="expected a regular file"):
            verify(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DoorwardError, match="expected at most"):
        verify(tmp_path / "large")
    assert time.perf_counter() - start < 1


def test_no_file_keeps_it_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these would run for hours or for ever; with a hundredth of the steps each ends within a second."""
    from doorward import verifier
    from doorward.verifier.work import Work

    monkeypatch.setattr(verifier, "Work", lambda most: Work(most // 100))
    content = ALL["smoothing"].json()

    def noisy(*keeps: str, **changes: Any) -> dict[str, Any]:
        blocks = [{**b, "keep": keep, "cells": None} for b, keep in zip(content["noise"], keeps, strict=True)]
        return {**content, "noise": blocks, **changes}

    whole = {"trials": 10**9, "votes": [[10**9, 0]] * 6}
    small = f"1/{'9' * 100}"
    hostile = [
        noisy("51/100", "51/100", "51/100"),
        noisy("51/100", "52/100", "53/100"),
        noisy("500000001/1000000000", "6/10", "6/10", **whole),
        noisy("9/10", "9/10", "9/10", alpha=small, **whole),
        noisy("9999999999999999999/19999999999999999997", "2/3", "3/4", alpha="999/1000", **whole),
        noisy("51/100", "51/100", "51/100", alpha="1e-30000000"),
        noisy("51/100", "51/100", "51/100", alpha="1/0"),
        {**content, "noise": content["noise"] * 7},
    ]
    for place, forged_one in enumerate(hostile):
        forged_one["sha256"] = content_hash({k: v for k, v in forged_one.items() if k != "sha256"})
        start = time.perf_counter()
        report = verify(write(tmp_path / "c.json", forged_one))
        assert not report.valid and len(report.problems) == 1, place
        assert time.perf_counter() - start < 5, place
