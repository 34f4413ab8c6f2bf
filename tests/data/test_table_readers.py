from __future__ import annotations

import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.core.tables import locked
from doorward.data.sources import load_images

PIXELS = hnp.arrays(np.uint8, st.tuples(st.integers(4, 8), st.integers(1, 6), st.integers(1, 6), st.just(3)))


def png(row: np.ndarray, **options: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(row).save(file, options.get("format", "PNG"))
    return file.getvalue()


def refusal(source: Path, **options: str) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_parquet(
    path: Path, columns: str, rows: list[tuple], select: str = "*", names: list[str] | None = None
) -> Path:
    meta = json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}) if names else "{}"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE t ({columns})")
        connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)
        escaped = meta.replace("'", "''")
        connection.execute(
            f"COPY (SELECT {select} FROM t) TO '{path}' (FORMAT parquet, KV_METADATA {{huggingface: '{escaped}'}})"
        )
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(4):
        (tmp_path / "deep").mkdir(exist_ok=True)
        Image.new("L", (3, 2), index).save(tmp_path / "deep" / f"{index}.png")
    return tmp_path


def manifest(folder: Path, text: str) -> Path:
    (folder / "set.csv").write_text(text, encoding="utf-8")
    return folder / "set.csv"


@settings(max_examples=10, deadline=None, derandomize=True)
@given(pixels=PIXELS, table=st.sampled_from(["csv", "parquet"]), data=st.data())
def test_manifest_round_trip(tmp_path_factory, pixels, table, data):
    folder = tmp_path_factory.mktemp("manifest")
    order = data.draw(st.permutations(range(len(pixels))))
    rows = []
    for index in order:
        (folder / f"{index}.png").write_bytes(png(pixels[index]))
        rows.append((f"{index}.png", ["dog", "cat"][index % 2]))
    if table == "csv":
        path = manifest(folder, "more,label,path\n" + "".join(f"1,{label},{path}\n" for path, label in rows))
    else:
        path = write_parquet(folder / "set.parquet", "path VARCHAR, label VARCHAR", rows)
    found = load_images(path)
    assert np.array_equal(found.pixels, pixels[list(order)])
    assert [found.classes[k] for k in found.labels] == [label for _, label in rows]
    assert found.classes == ("cat", "dog")


def test_csv_integer_labels_keep_their_numbers(pictures):
    found = load_images(
        manifest(pictures, "path,label\r\n" + "".join(f"deep/{i}.png,{[2, 10][i % 2]}\r\n" for i in range(4)))
    )
    assert found.labels.tolist() == [2, 10, 2, 10]
    assert len(found.classes) == 11
    found = load_images(
        manifest(pictures, "\ufeffpath,label\n" + "".join(f'"deep/{i}.png",0{i % 2}\n' for i in range(4)))
    )
    assert found.classes == ("00", "01")  # not plain numbers, so they are names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a CSV file with columns path and label"),
        ("file,label\nx,y\n", "columns file, label"),
        ("path,label\n", "no images"),
        ("path,label\ndeep/0.png\n", "line 2 has 1 fields"),
        ("path,label\ndeep/9.png,a\n", "is not a file"),
        ("path,label\n../x.png,a\n", "leaves"),
        ("path,label\ndeep/../../x.png,a\n", "leaves"),
        ("path,label\n/etc/passwd,a\n", "relative"),
        ("path,label\n..,a\n", "leaves"),
        ("path,label\ndeep,a\n", "is not a file"),
        ("path,label\ndeep/,a\n", "relative"),
        ('path,label\n"deep/0.png,a\n', "expected a CSV"),
        ("path,label\ndeep/0.png,a\ndeep/1.png,a\n", "at least two classes"),
        ("path,label\n" + "".join(f"deep/{i}.png,a/{i % 2}\n" for i in range(4)), "path separator"),
        ("path,label\n" + "".join(f"deep/{i}.png,{' ' if i % 2 else 'x'}\n" for i in range(4)), "is blank"),
    ],
)
def test_csv_manifests_that_are_refused(pictures, text, words):
    assert words in refusal(manifest(pictures, text))


def test_csv_that_is_no_text(pictures):
    (pictures / "set.csv").write_bytes(b"path,label\n\xff\xfe\x00,a\n")
    refusal(pictures / "set.csv")


def test_links_on_the_way_of_a_manifest(pictures, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    Image.new("L", (3, 2)).save(outside / "0.png")
    (pictures / "away").symlink_to(outside)
    (pictures / "deep" / "link.png").symlink_to(outside / "0.png")
    assert "leaves" in refusal(manifest(pictures, "path,label\naway/0.png,a\n"))
    assert "leaves" in refusal(manifest(pictures, "path,label\ndeep/link.png,a\n"))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(pixels=PIXELS, layout=st.sampled_from(["struct", "blob", "dotted", "img"]))
def test_parquet_with_image_bytes_round_trip(tmp_path_factory, pixels, layout):
    path = tmp_path_factory.mktemp("parquet") / "set.parquet"
    select = {
        "struct": "{'bytes': i, 'path': NULL::VARCHAR} AS image, label",
        "blob": "i AS image, label",
        "dotted": 'i AS "image.bytes", label',
        "img": "{'bytes': i, 'path': 'x'} AS img, label AS fine_label",
    }[layout]
    labels = [k % 2 for k in range(len(pixels))]
    write_parquet(path, "i BLOB, label INTEGER", [(png(r), k) for r, k in zip(pixels, labels, strict=True)], select)
    found = load_images(path)
    assert np.array_equal(found.pixels, pixels)
    assert found.labels.tolist() == labels


def test_parquet_class_names_come_from_the_hub_metadata_and_parts_in_order(tmp_path, make):
    images = make(per_class=700)  # more than one batch
    rows = [(png(r), int(k)) for r, k in zip(images.pixels, images.labels, strict=True)]
    for part, chunk in enumerate((rows[:500], rows[500:])):
        write_parquet(
            tmp_path / f"train-0000{part}-of-00002.parquet", "image BLOB, label BIGINT", chunk, names=["zebra", "ape"]
        )
    found = load_images(tmp_path)
    assert np.array_equal(found.pixels, images.pixels)
    assert found.classes == ("zebra", "ape")
    assert "the test split" in refusal(tmp_path, split="test")


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        ("x INTEGER", [(1,)], "columns x"),
        ("image INTEGER, label INTEGER", [(1, 1)], "column image of type INTEGER"),
        ("image BLOB, label DOUBLE", [(b"x", 0.5)], "labels of type float"),
        ("image BLOB, label INTEGER", [(b"x", None)], "row 0 has no label"),
        ("image BLOB, label INTEGER", [(None, 0), (None, 0), (None, 1), (None, 1)], "row 0 (holds no image bytes)"),
        (
            "image BLOB, label INTEGER",
            [(b"x", 0), (b"x", 0), (b"x", 1), (b"x", 1)],
            "row 0 (not an image of these formats)",
        ),
        ("path VARCHAR, label INTEGER", [(None, 0)], "no path or no label"),
        ("path VARCHAR, label INTEGER", [("../x.png", 0)], "leaves"),
    ],
)
def test_parquet_that_is_refused(tmp_path, columns, rows, words):
    assert words in refusal(write_parquet(tmp_path / "set.parquet", columns, rows))


def test_parquet_rows_that_differ_name_both(tmp_path):
    rows = [(png(np.zeros((2, 2 + (i == 3)), np.uint8)), i % 2) for i in range(4)]
    message = refusal(write_parquet(tmp_path / "set.parquet", "image BLOB, label INTEGER", rows))
    assert "from 2 x 2 (row 0) to 3 x 2 (row 3); expected one size, or --size N" in message


def test_a_name_that_duckdb_would_expand_is_refused(tmp_path):
    (tmp_path / "a*.parquet").write_bytes(b"")
    assert "rename it" in refusal(tmp_path / "a*.parquet")


def test_a_quote_in_the_name_is_just_a_quote(tmp_path):
    rows = [(png(np.zeros((2, 2), np.uint8)), i % 2) for i in range(4)]
    write_parquet(tmp_path / "plain.parquet", "image BLOB, label INTEGER", rows)
    odd = (tmp_path / "plain.parquet").rename(tmp_path / "it's '; DROP.parquet")
    assert len(load_images(odd)) == 4


def test_duckdb_reaches_nothing_but_the_files_given(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    allowed = write_parquet(tmp_path / "set.parquet", "x INTEGER", [(1,)])
    with locked([allowed]) as connection:
        assert connection.execute("SELECT x FROM read_parquet(?)", [str(allowed)]).fetchall() == [(1,)]
        for query in (
            f"SELECT * FROM read_csv('{secret}')",
            f"SELECT * FROM read_text('{secret}')",
            f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
            f"ATTACH '{tmp_path / 'x.db'}'",
            "INSTALL httpfs",
            "SET enable_external_access = true",
            "SET threads = 1",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(query)
    assert not (tmp_path / "out.csv").exists()
