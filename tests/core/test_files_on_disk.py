"""A full disk is one line, never a dead process; a file is whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core import tables, tensors
from doorward.core.errors import CannotWriteError, DoorwardError, writing_failed
from doorward.core.files import atomic_write
from doorward.core.memmaps import create, release
from doorward.core.runs import Run


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_disk_space_of_a_memory_map_is_reserved_before_it_is_written(tmp_path: Path) -> None:
    array = create(tmp_path / "a.npy", np.uint8, (1000, 1000))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1_000_000, (
        "a sparse file would kill the process on a full disk"
    )
    array[:] = 7
    release(array)
    assert (np.load(tmp_path / "a.npy") == 7).all(), "releasing pages loses nothing"


def test_a_full_disk_is_told_when_a_memory_map_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DoorwardError, match=r"images\.npy: No space left"), Run(tmp_path / "r", "attack", {}) as run:
        create(run.work / "images.npy", np.uint8, (9,))
    assert list(tmp_path.iterdir()) == []


def test_library_errors_of_writing_become_python_errors() -> None:
    error = writing_failed(RuntimeError("I/O error: No space left on device (os error 28)"), Path("x"))
    assert (error.errno, error.strerror, error.filename) == (28, "No space left on device", "x")


@pytest.mark.parametrize("values", [{"a": np.arange(3)}, {"a": torch.arange(3)}])
def test_tensors_round_trip(tmp_path: Path, values: dict[str, object]) -> None:
    tensors.write_tensors(tmp_path / "t.safetensors", values, {"about": "x"})
    assert tensors.read_tensors(tmp_path / "t.safetensors")["a"].tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_tensors_that_cannot_be_written_leave_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy

    tensors.write_tensors(tmp_path / "t", {"a": np.arange(3)})

    def broken(*_: object) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", broken)
    with pytest.raises(CannotWriteError, match="No space left on device"):
        tensors.write_tensors(tmp_path / "t", {"a": np.arange(9)})
    assert len(tensors.read_tensors(tmp_path / "t")["a"]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_file_is_replaced_whole_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.txt"
    atomic_write(path, "first\r\n")
    atomic_write(str(path), "ä\n".encode())
    atomic_write(path, lambda place: place.write_text("third"))
    assert path.read_text() == "third" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(CannotWriteError, match=r"a\.txt: cannot be written \(No space left on device\); expected"):
        atomic_write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_any_failure_of_the_writer_removes_what_it_began(tmp_path: Path) -> None:
    def broken(place: Path) -> None:
        place.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_write_says_that_it_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DoorwardError, match="is kept for a resume"), Run(tmp_path / "r", "train", {}) as run:
        atomic_write(run.work / "done", "x")
        monkeypatch.setattr(os, "fsync", full)
        atomic_write(run.work / "more", "x")
    assert sorted(p.name for p in (tmp_path / "r.partial").iterdir()) == ["done", "partial.json"]


def test_parquet_round_trip_and_what_is_refused(tmp_path: Path) -> None:
    columns = {"n": np.arange(3), "x": np.array([0.5, np.nan, 2], np.float32), "f": np.array([True, False, True])}
    path = tmp_path / "it's.parquet"
    tables.write_parquet(path, columns)
    again = tables.read_parquet(path)
    assert all(np.array_equal(again[k], v, equal_nan=k == "x") for k, v in columns.items())
    with pytest.raises(DoorwardError, match="columns of lengths"):
        tables.write_parquet(path, {"a": np.arange(2), "b": np.arange(3)})
    (tmp_path / "broken.parquet").write_bytes(path.read_bytes()[:50])
    with pytest.raises(DoorwardError, match=r"broken\.parquet: .*expected a Parquet file"):
        tables.read_parquet(tmp_path / "broken.parquet")
