"""IDX and CIFAR files."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from doorward.core.errors import DoorwardError
from doorward.data.readers.cifar import CIFAR10
from doorward.data.sources import load_images

GREY = hnp.arrays(np.uint8, st.tuples(st.integers(4, 9), st.integers(1, 9), st.integers(1, 9)))


def refusal(source: Path, **options: str) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_idx(folder: Path, pixels: np.ndarray, labels: np.ndarray, split: str = "train", packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    opener, ending = (gzip.open, ".gz") if packed else (open, "")
    with opener(folder / f"{split}-images-idx3-ubyte{ending}", "wb") as file:
        file.write(struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes())
    with opener(folder / f"{split}-labels-idx1-ubyte{ending}", "wb") as file:
        file.write(struct.pack(">2I", 0x801, len(labels)) + labels.astype(np.uint8).tobytes())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(pixels=GREY, packed=st.booleans(), inside=st.sampled_from(["", "MNIST/raw"]))
def test_idx_round_trip(tmp_path_factory, pixels, packed, inside):
    folder = tmp_path_factory.mktemp("idx")
    labels = np.arange(len(pixels)) % 2
    write_idx(folder / inside, pixels, labels, packed=packed)
    write_idx(folder / inside, pixels[::-1], labels, "t10k", packed)
    found = load_images(folder)
    assert np.array_equal(found.pixels[..., 0], pixels)
    assert np.array_equal(found.labels, labels)
    assert np.array_equal(load_images(folder, split="test").pixels[..., 0], pixels[::-1])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: b"\0\0\x08\x01" + d[4:], "expected 00000803"),
        (lambda d: d[:-1], "expected"),
        (lambda d: d + b"x", "expected"),
        (lambda d: d[:7], "expected"),
        (lambda d: d[:4] + struct.pack(">I", 5) + d[8:] + bytes(9), "5 images, but"),
        (lambda d: d[:8] + struct.pack(">2I", 2**31, 2**31) + d[16:], "bytes for sizes"),
        (lambda d: d[:8] + struct.pack(">2I", 0, 3) + d[16:16], "images of size 3 x 0"),
    ],
)
def test_idx_files_that_are_refused(tmp_path, packed, change, words):
    write_idx(tmp_path, np.zeros((4, 3, 3), np.uint8), np.arange(4) % 2)
    plain = tmp_path / "train-images-idx3-ubyte"
    data = change(plain.read_bytes())
    plain.unlink()
    (tmp_path / f"{plain.name}.gz").write_bytes(gzip.compress(data)) if packed else plain.write_bytes(data)
    assert words in refusal(tmp_path)


def test_idx_split_that_is_not_there(tmp_path):
    write_idx(tmp_path, np.zeros((4, 3, 3), np.uint8), np.arange(4) % 2)
    assert "the test split" in refusal(tmp_path, split="test")


def planes(pixels: np.ndarray) -> np.ndarray:
    """Images [N, 32, 32, 3] as CIFAR rows: all red, then all green, then all blue."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def cifar(count: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_cifar10_binary_round_trip(tmp_path, inside):
    pixels, labels = cifar(60), np.arange(60) % 10
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    records = np.concatenate([labels[:, None].astype(np.uint8), planes(pixels)], axis=1)
    for batch in range(2):
        (folder / f"data_batch_{batch + 1}.bin").write_bytes(records[20 * batch : 20 * batch + 20].tobytes())
    (folder / "test_batch.bin").write_bytes(records[40:].tobytes())
    found = load_images(tmp_path)
    assert np.array_equal(found.pixels, pixels[:40])
    assert np.array_equal(found.labels, labels[:40])
    assert found.classes == CIFAR10
    assert np.array_equal(load_images(tmp_path, split="test").pixels, pixels[40:])
    (folder / "batches.meta.txt").write_text("\n".join(f"k{k}" for k in range(10)) + "\n\n")
    assert load_images(tmp_path).classes[3] == "k3"


def test_cifar100_binary_takes_the_fine_label(tmp_path):
    pixels, fine = cifar(6), np.array([7, 7, 99, 99, 0, 0], np.uint8)
    coarse = np.full(6, 19, np.uint8)
    (tmp_path / "train.bin").write_bytes(np.concatenate([coarse[:, None], fine[:, None], planes(pixels)], 1).tobytes())
    found = load_images(tmp_path)
    assert found.labels.tolist() == fine.tolist()
    assert np.array_equal(found.pixels, pixels)


def test_cifar_binary_that_is_refused(tmp_path):
    record = np.zeros((4, 3073), np.uint8)
    record[2:, 0] = 200
    (tmp_path / "data_batch_1.bin").write_bytes(record.tobytes())
    assert "label 200" in refusal(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(record.tobytes()[:-1])
    assert "a multiple of 3073" in refusal(tmp_path)
    (tmp_path / "data_batch_1.bin").rename(tmp_path / "data_batch_2.bin")
    assert "data_batch_1.bin is missing" in refusal(tmp_path)


@pytest.mark.parametrize("files", [("data_batch_1", "batches.meta"), ("test_batch",), ("train", "test", "meta")])
@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py", "cifar-100-python"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_python_version_is_refused_unread(tmp_path, files, inside, split):
    folder, trace = tmp_path / "set" / inside, tmp_path / "executed"
    folder.mkdir(parents=True)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    for name in files:
        (folder / name).write_bytes(pickle.dumps(Evil(), 2))
    assert "CIFAR's Python version, a pickle" in (told := refusal(tmp_path / "set", split=split))
    assert "expected the binary version" in told and not trace.exists()


def test_the_binary_version_beside_the_python_version_is_read(tmp_path):
    for folder in ("cifar-10-batches-py", "cifar-10-batches-bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"")
    records = np.zeros((4, 3073), np.uint8)
    records[2:, 0] = 1
    (tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(records.tobytes())
    assert len(load_images(tmp_path)) == 4
