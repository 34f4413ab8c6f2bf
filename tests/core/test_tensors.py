"""Safetensors files: the same bytes for the same tensors, and what is refused before a tensor is read."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.core.tensors import read_described, read_header, read_tensors, write_tensors

ABOUT = {name: f'a "quoted" \\ \x7f \u2028 text of {name}' for name in "qwertyuiopasdfgh"}


def made(header: object, content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def one(**changes: object) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2, dtype=torch.float16), "n": torch.tensor(7)}
    files = []
    for number, names in enumerate([*[sorted(ABOUT), sorted(ABOUT, reverse=True)] * 4]):
        write_tensors(tmp_path / f"{number}", tensors, {name: ABOUT[name] for name in names})
        files.append((tmp_path / f"{number}").read_bytes())
    assert len(set(files)) == 1, "texts beside tensors lie in the order of their names"
    found, about = read_described(tmp_path / "0")
    assert about == ABOUT and list(about) == sorted(ABOUT)
    assert all(torch.equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in tensors)


def test_every_type_and_empty_arrays_survive(tmp_path: Path) -> None:
    arrays = {kind: np.ones((2, 3), kind) for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")}
    arrays["none"] = np.zeros((0, 64), np.float32)
    write_tensors(tmp_path / "a", arrays)
    found, _ = read_described(tmp_path / "a", framework="np")
    assert all(np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in arrays.items())
    assert read_header(tmp_path / "a").shapes == {k: v.shape for k, v in arrays.items()}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "0 bytes"),
        (struct.pack("<Q", 2**60) + b"{}", "of which the header were"),
        (struct.pack("<Q", 17 * 2**20) + b" " * (17 * 2**20), "a header of 17,825,792 bytes"),
        (made([]), "holds a list"),
        (made(one(dtype="F8_E4M3", data_offsets=[0, 2]), bytes(2)), "of type F8_E4M3"),
        (made(one(dtype="C64", data_offsets=[0, 16]), bytes(16)), "of type C64"),
        (made(one(dtype=7), bytes(8)), "of type 7"),
        (made(one(shape=[10**12]), bytes(8)), r"shape \[1000000000000\]"),
        (made(one(shape=[2**40, 2**40]), bytes(8)), "shape"),
        (made(one(shape=[10**9, 0], data_offsets=[0, 0])), "shape"),
        (made(one(shape=[-2]), bytes(8)), "without type, shape and place"),
        (made(one(shape=[2.0]), bytes(8)), "without type, shape and place"),
        (made(one(shape=[True, 2]), bytes(8)), "without type, shape and place"),
        (made(one(data_offsets=[8, 0]), bytes(8)), "in bytes 8 to 0"),
        (made(one(data_offsets=[0, 10**30]), bytes(8)), "in bytes"),
        (made({"a": 3}), "without type, shape and place"),
        (made({**one(), "__metadata__": {"x": 3}}, bytes(8)), "metadata that is no text"),
        (made({"\ud800": one()["a"]}, bytes(8)), "half a character"),
        (struct.pack("<Q", 15) + b'{"a":1, "a":2} ', "comes twice"),
        (struct.pack("<Q", 2000) + b"[" * 1000 + b"]" * 1000, "in each other"),
        (made({**one(), "b": one()["a"]}, bytes(8)), "expected a whole safetensors file"),
    ],
)
def test_a_header_is_held_against_the_file(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DoorwardError, match=f"{told}.*expected a whole safetensors file|^.*{told}") as error:
        read_tensors(tmp_path / "a")
    assert "\n" not in str(error.value) and "expected a whole safetensors file" in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_devices_links_and_large_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    write_tensors(tmp_path / "elsewhere", {"a": torch.ones(9)})
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    for name, told in (("pipe", "named pipe"), ("zero", "device"), ("none", "No such file"), ("link", "leaves")):
        with pytest.raises(DoorwardError, match=told):
            read_tensors(folder / name, inside=folder)
    assert len(read_tensors(folder / "link")) == 1, "what the command line names may be a link"
    with pytest.raises(DoorwardError, match="expected at most 20"):
        read_tensors(tmp_path / "elsewhere", most=20)
