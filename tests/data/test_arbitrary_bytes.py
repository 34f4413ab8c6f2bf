"""Whatever bytes a file holds: a set, or one line; never another exception, and nothing is executed."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data.sources import load_images

IDX_LABELS = struct.pack(">2I", 0x801, 4) + bytes([0, 0, 1, 1])


def buffer(write) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def archive_of_pictures(file: io.BytesIO) -> None:
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))


def zip_of_pictures(file: io.BytesIO) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            archive.writestr(name, PNG)


PNG = buffer(lambda f: Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(f, "PNG"))


def parquet(folder) -> bytes:
    path = folder / "x.parquet"
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (image BLOB, label INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(PNG, k % 2) for k in range(4)])
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


ARRAYS = {"images": np.zeros((4, 5, 5), np.uint8), "labels": np.arange(4) % 2}
RUN = ImageSet(np.zeros((4, 5, 5, 1), np.uint8), np.arange(4) % 2, ("a", "b"))


def saved(array: np.ndarray) -> bytes:
    return buffer(lambda f: np.save(f, array))


def encoded(kind: str) -> bytes:
    return buffer(lambda f: Image.new("RGB", (4, 4)).save(f, kind))


IDX = struct.pack(">4I", 0x803, 4, 2, 2) + bytes(16)
IDX_NAMES = ("set/train-images-idx3-ubyte", "set/train-labels-idx1-ubyte")
BINARY = np.repeat(np.arange(2, dtype=np.uint8), 2 * 3073).tobytes()
THREE = {"set/a/1.png": PNG, "set/b/0.png": PNG, "set/b/1.png": PNG}
JSON = b'{"name": "x", "classes": ["a", "b"], "sha256": "0"}'
WRITTEN = {"set/images.json": JSON, "set/images.npy": saved(RUN.pixels), "set/labels.npy": saved(RUN.labels)}
CSV = b"path,label\n0.png,a\n0.png,a\n0.png,b\n0.png,b\n"

# where the bytes go, what stands beside them, and a good file to start from
CASES = {
    "npz": ("set.npz", {}, buffer(lambda f: np.savez(f, **ARRAYS))),
    "npz packed": ("set.npz", {}, buffer(lambda f: np.savez_compressed(f, **ARRAYS))),
    "csv": ("set.csv", {"0.png": PNG}, CSV),
    "parquet": ("set.parquet", {}, parquet),
    "idx": (IDX_NAMES[0], {IDX_NAMES[1]: IDX_LABELS}, IDX),
    "idx gz": (f"{IDX_NAMES[0]}.gz", {IDX_NAMES[1]: IDX_LABELS}, gzip.compress(IDX)),
    "idx labels": (IDX_NAMES[1], {IDX_NAMES[0]: IDX}, IDX_LABELS),
    "cifar binary": ("set/data_batch_1.bin", {}, BINARY),
    "cifar names": ("set/batches.meta.txt", {"set/data_batch_1.bin": BINARY}, b"a\nb\n"),
    "png": ("set/a/0.png", THREE, PNG),
    "jpg": ("set/a/0.jpg", THREE, encoded("JPEG")),
    "webp": ("set/a/0.webp", THREE, encoded("WEBP")),
    "bmp": ("set/a/0.bmp", THREE, encoded("BMP")),
    "tar": ("set.tar.gz", {}, buffer(archive_of_pictures)),
    "zip": ("set.zip", {}, buffer(zip_of_pictures)),
    "run json": ("set/images.json", WRITTEN, JSON),
    "run pixels": ("set/images.npy", WRITTEN, saved(RUN.pixels)),
    "run labels": ("set/labels.npy", WRITTEN, saved(RUN.labels)),
}


def attempt(source) -> bool:
    """True when it loads; false when it is refused in one printable line; anything else fails the test."""
    try:
        load_images(source)
        return True
    except DoorwardError as error:
        assert str(error).isprintable(), str(error)
        return False


@pytest.mark.parametrize("case", CASES)
def test_damaged_and_arbitrary_files(tmp_path_factory, case):
    name, beside, good = CASES[case]
    folder = tmp_path_factory.mktemp("bytes")
    if callable(good):
        good = good(folder)
    source = folder / name.split("/")[0]
    for other, content in beside.items():
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(content)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(good)
    attempt(source)

    damage = st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), min_size=1, max_size=8)

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=200), damage, st.integers(0, len(good) - 1)))
    def try_one(change):
        if isinstance(change, bytes):
            data = change
        elif isinstance(change, int):
            data = good[:change]
        else:
            data = bytearray(good)
            for at, value in change:
                data[at] = value
        path.write_bytes(data)
        attempt(source)

    try_one()


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("run")])
def test_the_good_files_that_are_damaged_above_are_good(tmp_path, case):
    name, beside, good = CASES[case]
    good = good(tmp_path) if callable(good) else good
    for other, content in {**beside, name: good}.items():
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_bytes(content)
    assert attempt(tmp_path / name.split("/")[0])
