"""The fuzzer itself: what a reader may not do is seen, and cases are the same for the same seed."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from benchmarks import fuzz
from benchmarks.fuzzing import child, seeds
from benchmarks.fuzzing.damage import OUTSIDE, damaged
from benchmarks.fuzzing.seeds import Seed

from doorward.core.errors import DoorwardError

WHOLE = b"whole 12345"


def refuses(path: Path) -> None:
    raise DoorwardError("no")


def mumbles(path: Path) -> None:
    raise DoorwardError("two\nlines")


def waits(path: Path) -> None:
    time.sleep(60)


def dies(path: Path) -> None:
    os._exit(7)


def grows(path: Path) -> None:
    bytearray(b"x") * (child.GUARD + 2**26)


def strays(path: Path) -> None:
    (path.parent.parent / OUTSIDE).write_bytes(b"")


def hides(path: Path) -> None:
    try:
        bytearray(2**40)
    except MemoryError as error:
        raise DoorwardError("refused, after all") from error


FAULTS = {
    "mumbles": (mumbles, "not one printable line"),
    "breaks": (lambda path: {}["x"], "KeyError"),
    "waits": (waits, "took more than 3 seconds"),
    "dies": (dies, "died with exit code 7"),
    "grows": (grows, "memory:"),
    "strays": (strays, "outside:"),
    "hides": (hides, "memory: refused, after all"),
}


def test_every_fault_of_a_reader_is_seen_and_kept(tmp_path, monkeypatch):
    def of(name, read):
        monkeypatch.setitem(seeds.READERS, name, lambda path: path.read_bytes() == WHOLE or read(path))
        return Seed({"file": WHOLE}, ("file",), "file", name)

    made = {name: of(name, read) for name, (read, _) in FAULTS.items()} | {"refuses": of("refuses", refuses)}
    monkeypatch.setattr(fuzz, "PATIENCE", 3.0)  # a slow machine takes more than one second to do what `grows` does
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(fuzz, "_MOST_KEPT", 1)
    monkeypatch.setattr(fuzz, "_BATCH", 1)
    run = fuzz.Fuzz(made, seed=3, jobs=2)
    run.run(6.0)
    assert run.counts["refuses"]["refused"] and not run.counts["refuses"]["failed"]
    for name, (_, words) in FAULTS.items():
        assert run.counts[name]["failed"], name
        (folder,) = (tmp_path / "kept").glob(f"{name}-3-*")
        assert words in (folder / "told.txt").read_text()
        number = int(folder.name.rpartition("-")[2])
        assert (folder / "file").read_bytes() == child.make_case(made[name], name, number, 3)[1] != WHOLE


def test_cases_are_the_same_for_the_same_seed_and_differ_otherwise():
    seed = Seed({"a": WHOLE, "b": WHOLE * 9}, ("a", "b"), "a")
    cases = [child.make_case(seed, "x", number, 0) for number in range(50)]
    assert cases == [child.make_case(seed, "x", number, 0) for number in range(50)]
    assert len(set(cases)) > 45
    assert cases != [child.make_case(seed, "x", number, 1) for number in range(50)]


@pytest.mark.parametrize("data", [b"", b"x", bytes(3), b"7" * 600])
def test_whatever_is_damaged_stays_bytes_of_a_bounded_size(data):
    for number in range(300):
        assert len(damaged(data, random.Random(number))) <= 1 << 20
