"""Files that somebody else may have made: what is opened, and what is refused in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from doorward.core.errors import DoorwardError
from doorward.core.opening import check_file, open_file, parse_json, read_bytes, read_json, read_text

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    assert check_file(file, inside=tmp_path, most=3) == 3
    assert read_bytes(file, most=3) == b"abc"
    assert read_text(file, most=3) == "abc"


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = {"pipe": tmp_path / "pipe", "device": tmp_path / "zero", "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    started = time.monotonic()
    for opener in (check_file, open_file):
        with pytest.raises(DoorwardError, match="expected a regular file"):
            opener(path)
    assert time.monotonic() - started < 1


def test_links_may_not_leave_their_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "own").write_text("y")
    (folder / "inner").symlink_to(folder / "own")
    (folder / "outer").symlink_to(tmp_path / "secret")
    assert read_text(folder / "inner", most=1, inside=folder) == "y"
    assert read_text(folder / "outer", most=1) == "x", "without a folder, links are the user's own"
    with pytest.raises(DoorwardError, match="link that leaves"):
        open_file(folder / "outer", inside=folder)


@pytest.mark.parametrize("below", ["", "data"])
def test_a_snapshot_of_hugging_face_s_cache_may_link_to_its_own_blobs(tmp_path: Path, below: str) -> None:
    home = tmp_path / "datasets--org--name"
    folder = home / "snapshots" / "0123" / below
    folder.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "blobs" / "ab").write_text("x")
    (tmp_path / "secret").write_text("x")
    (folder / "own.parquet").symlink_to(home / "blobs" / "ab")
    (folder / "other.parquet").symlink_to(tmp_path / "secret")
    assert check_file(folder / "own.parquet", inside=folder) == 1
    with pytest.raises(DoorwardError, match="link that leaves"):
        check_file(folder / "other.parquet", inside=folder)


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as made:
        made.truncate(2**40)  # sparse
    with pytest.raises(DoorwardError, match="expected at most 1,000"):
        read_bytes(file, most=1000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"radii": [99], "radii": [3]}', "'radii' comes twice"),
        ('{"a": {"b": 1, "b": 1}}', "'b' comes twice"),
        ("[" * 65 + "]" * 65, "in each other"),
        ("[" * 200_000, "in each other"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("[1e999]", "1e999"),
        ("[" + "9" * 5000 + "]", "5000 digits"),
        ("[1", "expected JSON"),
    ],
)
def test_json_that_means_two_things_or_too_much_is_refused(text: str, told: str) -> None:
    with pytest.raises(DoorwardError, match=told):
        parse_json(text, "x.json")


def test_brackets_in_text_are_text() -> None:
    told = '"' + "[" * 1000 + '\\"' + "{" * 1000
    assert parse_json(f'{{"a": {told}"}}', "x")["a"].count("[") == 1000


def test_a_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DoorwardError, match="expected UTF-8"):
        read_json(file)


@pytest.mark.parametrize("text", ['"' + '\\"' * 200_000, '"' + "\\" * 399_999, '"' * 200_001])
def test_a_text_that_does_not_end_is_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(DoorwardError):
        parse_json("[" * 65 + text, "x")
    assert time.perf_counter() - start < 2
