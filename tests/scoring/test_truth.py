"""The truth in every form it comes in: of an attack, or a list of poisoned images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from doorward.attacks.files import save_truth
from doorward.attacks.poison import Truth
from doorward.cleansers.samples import Samples
from doorward.core.errors import DoorwardError
from doorward.core.results import ImagesRecord
from doorward.scoring.truth import read_truth

IDS = ("cat/a.png", "cat/b, c.png", "dog/ü.png", "dog/d.png")
LABELS = np.array([0, 0, 1, 1])
IMAGES = ImagesRecord(name="pets", sha256="0" * 64, classes=("cat", "dog"), counts=(2, 2), shape=(3, 8, 8))


def looked(ids: tuple[str, ...] | None = IDS) -> Samples:
    return Samples(np.arange(4), LABELS, LABELS, {}, {}, ids)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.txt", "cat/b, c.png\n\ndog/ü.png\r\n"),
        ("ids", "\ufeffdog/ü.png\ncat/b, c.png"),
        ("ids.csv", 'why,id\nstamped,"cat/b, c.png"\nodd,dog/ü.png\n'),
        ("all.csv", 'id,poisoned\ncat/a.png,0\n"cat/b, c.png",1\ndog/ü.png,True\ndog/d.png,false\n'),
    ],
)
def test_a_list_says_who_is_poisoned(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    known = read_truth(tmp_path / name, looked(), IMAGES)
    assert known.poisoned.tolist() == [False, True, True, False]
    assert known.attack is None and known.targets == (0, 1)
    told = known.facts(IMAGES.classes)
    assert told is not None and told.poisoned == 2 and told.description == f"poisoned images as {name} lists them"


def test_images_without_names_are_listed_by_number(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("3\n")
    assert read_truth(tmp_path / "ids.txt", looked(None), IMAGES).poisoned.tolist() == [False, False, False, True]


def test_truth_without_its_attack_still_says_who_is_poisoned(tmp_path: Path) -> None:
    poisoned = np.array([True, False, False, False])
    save_truth(Truth(poisoned, LABELS, np.where(poisoned, 0, -1), np.arange(4)), tmp_path / "truth.parquet")
    known = read_truth(tmp_path / "truth.parquet", looked(), IMAGES)
    assert known.poisoned.tolist() == poisoned.tolist() and known.attack is None and known.targets == (0,)


def test_a_clean_control_has_no_attack() -> None:
    known = read_truth(None, looked(), IMAGES)
    assert not known.poisoned.any() and known.facts(IMAGES.classes) is None


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("ids.txt", b"cat/a.png\nfox/x.png\nfox/y.png\n", "'fox/x.png' is no image of the run; expected names such as"),
        ("ids.txt", b"\n \n", "lists no image; expected some that are poisoned, or --clean"),
        ("ids.csv", b"name,label\na,b\n", "columns name, label; expected a column 'id'"),
        ("ids.csv", b"", "columns none; expected a column 'id'"),
        ("ids.txt", b"\xff\xfe\x00\x01", "no text; expected ids one a line, a CSV"),
        ("absent.txt", None, "No such file or directory; expected ids one a line"),
        ("truth.parquet", b"no parquet", "expected a Parquet file"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(tmp_path: Path, name: str, data: bytes | None, told: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DoorwardError, match=re.escape(told)) as error:
        read_truth(tmp_path / name, looked(), IMAGES)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)
