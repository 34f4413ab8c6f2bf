"""A small file never becomes much memory: what it promises is looked at before anything is taken for it."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from doorward.core import tables
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data import decoding
from doorward.data.readers.decode import Plan
from doorward.data.sources import load_images

MIB = 2**20


def refusal(source: Path, **options: object) -> str:
    """The line, which must come without 128 MiB of memory being taken."""
    tracemalloc.start()
    try:
        with pytest.raises(DoorwardError) as caught:
            load_images(source, **options)
        assert tracemalloc.get_traced_memory()[1] < 128 * MIB
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    return str(caught.value)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_header_of_a_tar_is_not_read_at_the_size_that_it_tells(tmp_path, kind, packed):
    path = tmp_path / ("set.tar.gz" if packed else "set.tar")
    if packed:
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header("x", 2**31, kind))
            for _ in range(100):
                file.write(bytes(MIB))
        assert path.stat().st_size < MIB
    else:
        with path.open("wb") as file:
            file.write(header("x", 2**31, kind))
            file.truncate(2**31 + 4096)
        (tmp_path / "shards").mkdir()
        os.link(path, tmp_path / "shards" / "0.tar")
        assert "a header of 2,147,483,648 bytes" in refusal(tmp_path / "shards")
    assert "a header of 2,147,483,648 bytes; expected at most 1,048,576" in refusal(path)


def test_global_headers_of_a_tar_do_not_pile_up(tmp_path):
    with gzip.open(tmp_path / "set.tar.gz", "wb", compresslevel=1) as file:
        for part in range(20):
            records = b"".join(b"26 k%05d_%06d=vvvvvvvv\n" % (part, k) for k in range(100))
            file.write(header("g", len(records), b"g") + records + bytes(-len(records) % 512))
        file.write(header("a/", 0, tarfile.DIRTYPE) + bytes(1024))
    assert "more than 1000 global fields" in refusal(tmp_path / "set.tar.gz")


def test_archives_that_unpack_to_far_more_than_they_are(tmp_path, cache):
    with gzip.open(tmp_path / "set.tar.gz", "wb", compresslevel=1) as file:
        file.write(header("a/0.png", 300 * MIB))
        for _ in range(300):
            file.write(bytes(MIB))
    assert "314,572,800 bytes so far" in refusal(tmp_path / "set.tar.gz")
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("a/0.png", "a/1.png"):
            with archive.open(name, "w") as file:
                for _ in range(150):
                    file.write(bytes(MIB))
    assert "unpacks to 314,572,800 bytes; expected at most" in refusal(tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a/0.png", b"x")
    assert "method 14" in refusal(tmp_path / "other.zip")
    assert not list((cache / "archives").iterdir())


def parquet(path: Path, select: str) -> Path:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 5000000)")
    assert path.stat().st_size < 5000
    return path


BLOB = "'x'::BLOB AS image"


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ("SELECT 'a.png' AS path, 1 AS label FROM range(3000000)", "3,000,000 rows in"),
        (f"SELECT {BLOB}, 1 AS label FROM range(3000000)", "3,000,000 rows in"),
        ("SELECT repeat('x', 200000) AS path, 1 AS label FROM range(3000)", "a path of 200,000 characters"),
        ("SELECT 'a.png' AS path, repeat('x', 200000) AS label FROM range(3000)", "a label of 200,000 characters"),
        (f"SELECT {BLOB}, repeat('x', 200000) AS label FROM range(3000)", "a label of 200,000 characters"),
        (f"SELECT {BLOB}, 1 + range % 2 AS label, repeat('x', 200000) AS id FROM range(3000)", "name of an image of"),
        ("SELECT repeat('x', 200000)::BLOB AS image, range % 2 AS label FROM range(3000)", "pictures of 600,000,000"),
        (f"SELECT {BLOB}, [range] AS label FROM range(3)", "labels of type BIGINT[]"),
    ],
)
def test_parquet_columns_that_repeat_one_value(tmp_path, select, words):
    assert words in refusal(parquet(tmp_path / "set.parquet", select))


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ("SELECT 1 AS label FROM range(3000000)", "3,000,000 rows"),
        ("SELECT repeat('x', 200000) AS id FROM range(3000)", "text of 200,000 characters in one cell, 600,000,000"),
        ("SELECT repeat('x', 4000) AS id FROM range(300000)", "4,000 characters in one cell, 1,200,000,000 in all"),
        ("SELECT [range] AS id FROM range(3)", "column id of BIGINT[]"),
    ],
)
def test_tables_of_runs_have_the_same_limits(tmp_path, select, words):
    path = parquet(tmp_path / "samples.parquet", select)
    with pytest.raises(DoorwardError) as caught:
        tables.read_parquet(path)
    assert words in str(caught.value)


def test_a_table_of_a_million_rows_is_read_back(tmp_path):
    tables.write_parquet(tmp_path / "t.parquet", {"flag": np.zeros(1_000_000, bool)})
    assert len(tables.read_parquet(tmp_path / "t.parquet")["flag"]) == 1_000_000


def test_a_long_label_among_many_short_ones(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    path = tmp_path / "set.csv"
    path.write_text(f"path,label\na.png,{'x' * 100_000}\n" + "a.png,b\n" * 14_000)
    assert "line 2 has a label of 100,000 characters; expected at most 100" in refusal(path)
    path.write_text(f"path,label\n{'x' * 5000},a\n")
    assert "line 2 has a path of 5,000 characters" in refusal(path)


def test_more_labels_than_images_are_not_unpacked(tmp_path):
    def write(name: str, head: bytes, count: int) -> None:
        with gzip.open(tmp_path / f"train-{name}-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(head)
            for _ in range(count // MIB):
                file.write(bytes(MIB))

    many = 100 * MIB
    write("images-idx3", struct.pack(">4I", 0x803, many, 1, 1), many)
    write("labels-idx1", struct.pack(">2I", 0x801, many), many)
    assert "104,857,600 images; expected at most 10,000,000" in refusal(tmp_path)


def npz(path: Path, arrays: dict[str, tuple[tuple[int, ...], str]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (shape, kind) in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": kind})
                left = int(np.prod(shape)) * np.dtype(kind).itemsize
                while left:
                    left -= file.write(bytes(min(left, MIB)))
    assert path.stat().st_size < MIB
    return path


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": ((4, 2, 2), "|u1"), "labels": ((100 * MIB,), "|u1")}, "labels of shape [104857600] for 4 images"),
        ({"images": ((20 * MIB, 1, 1), "|u1"), "labels": ((20 * MIB,), "|u1")}, "expected at most 10,000,000"),
        ({"images": ((50, 2, 2), "|u1"), "labels": ((50,), "<U500000")}, "text of 500,000 characters"),
        ({"images": ((4, 2, 2), "|u1"), "labels": ((4,), "|u1"), "ids": ((25 * MIB,), "<U1")}, "26,214,400 ids"),
    ],
)
def test_arrays_of_labels_and_names_are_looked_at_before_they_are_read(tmp_path, arrays, words):
    assert words in refusal(npz(tmp_path / "set.npz", arrays))


def test_a_header_of_an_array_is_not_read_at_the_size_that_it_tells(tmp_path, saved):
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**30)
    for name in ("images.npy", "labels.npy"):
        before = (saved / name).read_bytes()
        with (saved / name).open("wb") as file:
            file.write(head)
            file.truncate(2**30 + 100)
        assert "a header of more than 10,000 bytes" in refusal(saved)
        (saved / name).write_bytes(before)
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("images.npy", "labels.npy"):
            with archive.open(name, "w") as file:
                file.write(head)
                for _ in range(100):
                    file.write(b" " * MIB)
    assert "a header of more than 10,000 bytes" in refusal(tmp_path / "set.npz")


@pytest.fixture
def saved(tmp_path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    ImageSet(pixels, np.arange(4) % 2, ("a", "b"), ids=tuple("wxyz")).save(folder)
    return folder


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def elsewhere(path: Path) -> None:
    other = path.parent.parent / f"other-{path.name}"
    other.write_bytes(b"")
    path.symlink_to(other)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "images.json", "ids.jsonl"])
@pytest.mark.parametrize("make", [pipe, zeros, elsewhere])
def test_files_of_a_saved_set_are_regular_and_in_its_folder(saved, name, make: Callable[[Path], None]):
    assert len(load_images(saved)) == 4
    (saved / name).unlink()
    make(saved / name)
    told = refusal(saved)
    assert any(words in told for words in ("is a named pipe", "is a device", "is a link that leaves")), told


@pytest.mark.parametrize("name", ["run.json", "data_batch_1.bin", "train-images-idx3-ubyte", "train.parquet", "0.tar"])
@pytest.mark.parametrize("make", [pipe, zeros, elsewhere])
def test_data_files_in_a_folder_are_regular_and_in_it(tmp_path, name, make: Callable[[Path], None]):
    folder = tmp_path / "set"
    folder.mkdir()
    make(folder / name)
    if "images" in name:
        (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 1) + b"\0")
    told = refusal(folder)
    assert any(words in told for words in ("is a named pipe", "is a device", "is a link that leaves")), told


def test_a_file_that_the_user_names_may_be_a_link(tmp_path, saved):
    np.savez(tmp_path / "real.npz", images=np.zeros((4, 2, 2), np.uint8), labels=np.arange(4) % 2)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "set.npz").symlink_to(tmp_path / "real.npz")
    (tmp_path / "links" / "set").symlink_to(saved)
    assert len(load_images(tmp_path / "links" / "set.npz")) == len(load_images(tmp_path / "links" / "set")) == 4


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("images.json", b"\xff\xfe{", "expected UTF-8 text"),
        ("images.json", b"[" * 100_000, "lists and objects in each other"),
        ("images.json", b'{"name": NaN}', "the number NaN"),
        ("ids.jsonl", b"[" * 10_000 + b"\n", "no text of at most"),
        ("ids.jsonl", b'"' + b"x" * 10**6, "a line of more than 49,155 bytes"),
        ("ids.jsonl", b'"x"\n' * 100_000, "more than 4 names for 4 images"),
    ],
)
def test_odd_text_beside_a_saved_set_is_one_line(saved, name, content, words):
    (saved / name).write_bytes(content)
    assert words in refusal(saved)


def test_a_pipe_with_a_pictures_name_is_a_bad_picture(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("L", (3, 3), number).save(tmp_path / label / f"{number}.png")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    assert "a/2.jpg: is a named pipe, not a regular file" in refusal(tmp_path)
    found = load_images(tmp_path, skip_bad=True)
    assert len(found) == 4 and list(found.provenance["skipped"]) == ["a/2.jpg"]
    (tmp_path / "a" / "2.jpg").unlink()
    with (tmp_path / "a" / "2.jpg").open("wb") as file:
        file.truncate(2**30)
    assert "1,073,741,824 bytes" in refusal(tmp_path)


def test_large_pictures_are_decoded_alone(tmp_path, monkeypatch):
    """Small ones never wait; a large one holds the lock while its pixels are there."""
    monkeypatch.setattr("doorward.data.readers.decode._LARGE", 50)
    entered: list[int] = []

    class Alone:
        def __enter__(self) -> None:
            entered.append(1)

        def __exit__(self, *error: object) -> None:
            pass

    for side, times in ((7, 0), (8, 1)):
        file = io.BytesIO()
        Image.new("L", (side, side)).save(file, "PNG")
        decoding.decode_chunk([file.getvalue()] * 3, 0, Plan(side, side, 1, None), Alone)
        assert len(entered) == 3 * times


def sleep(*_: object) -> decoding.Outcome:
    time.sleep(60)
    return decoding.Outcome()


def take(*_: object) -> decoding.Outcome:
    with pytest.raises(MemoryError):
        np.ones(decoding._ROOM + 2**28, np.uint8)
    return decoding.Outcome()


def end(*_: object) -> decoding.Outcome:
    os._exit(1)


def test_a_process_that_hangs_dies_or_grows_is_told_with_its_pictures(monkeypatch):
    monkeypatch.setattr(decoding, "_PATIENCE", 1)
    monkeypatch.setattr(decoding, "_PATIENCE_PER_PICTURE", 0)

    def task(function: Callable[..., decoding.Outcome], *names: str) -> decoding.Task:
        return len(names), function, ("file", 0, list(names), 7, Plan(1, 1, 1, None))

    with pytest.raises(DoorwardError, match="from a to b take more than 1 seconds to decode"):
        list(decoding._in_processes(iter([task(sleep, "a", "b")]), 2))
    monkeypatch.setattr(decoding, "_PATIENCE", 60)
    with pytest.raises(DoorwardError, match="killed .* from c to d"):
        list(decoding._in_processes(iter([task(end, "c", "d")]), 2))
    assert [rows for rows, _ in decoding._in_processes(iter([task(take, "e")]), 2)] == [1]


def nothing(*_: object) -> decoding.Outcome:
    return decoding.Outcome()


@pytest.mark.parametrize(("size", "most"), [(10, 7), (600, 1)])
def test_no_more_pictures_are_handed_over_than_fit(monkeypatch, size, most):
    monkeypatch.setattr(decoding, "_IN_FLIGHT", 1000)
    asked: list[int] = []

    def tasks():
        for number in range(12):
            asked.append(number)
            yield 1, nothing, ("file", 0, [bytes(size)], number, Plan(1, 1, 1, None))

    for done, _ in enumerate(decoding._in_processes(tasks(), 2), 1):
        assert len(asked) <= done + most
    assert len(asked) == done == 12


def test_compressed_arrow_batches_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow (doorward[arrow]) is not installed")
    table = pa.table({"image": pa.array([b"x"] * 4), "label": pa.array([0, 0, 1, 1])})
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (tmp_path / "dataset_info.json").write_text("{}")
    for packing, words in (("zstd", "compressed batches"), (None, "not an image of these formats")):
        options = pa.ipc.IpcWriteOptions(compression=packing)
        with pa.ipc.new_stream(str(tmp_path / "data.arrow"), table.schema, options=options) as writer:
            writer.write_table(table)
        assert words in refusal(tmp_path)
