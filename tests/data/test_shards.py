"""WebDataset shards, and folders of the `datasets` library."""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.data.sources import load_images


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (3, 2), value).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, entries: list[tuple[str, bytes]], extra: tarfile.TarInfo | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if extra:
            archive.addfile(extra)
    return path


def samples(first: int, count: int, ending: str = "cls") -> list[tuple[str, bytes]]:
    entries = []
    for value in range(first, first + count):
        label = {"cls": str(value % 2), "txt": "cat" if value % 2 else "dog", "json": json.dumps({"label": value % 2})}
        entries += [(f"{value:04d}.png", png(value)), (f"{value:04d}.{ending}", label[ending].encode())]
    return entries


def refusal(source: object, **more: object) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["cls", "json", "txt"])
@pytest.mark.parametrize("way", ["file", "folder", "range", "glob"])
def test_shards(tmp_path, ending, way, cache):
    for number in range(3):
        tar(tmp_path / "set" / f"shards-{number:03d}.tar", samples(4 * number, 4, ending))
    source = {
        "file": "shards-000.tar", "folder": "", "range": "shards-{000..002}.tar", "glob": "shards-*.tar",
    }[way]  # fmt: skip
    found = load_images(tmp_path / "set" / source)
    count = 4 if way == "file" else 12
    assert found.pixels[:, 0, 0, 0].tolist() == list(range(count))
    assert found.classes == (("cat", "dog") if ending == "txt" else ("0", "1"))
    assert [found.classes[k] in ("dog", "0") for k in found.labels] == [True, False] * (count // 2)
    assert found.image_id(3) == "shards-000/0003" and found.name == ("shards-000" if way == "file" else "set")
    assert not cache.exists() or not list(cache.iterdir()), "nothing is unpacked"


def test_an_archive_of_class_folders_is_still_one(tmp_path):
    found = load_images(tar(tmp_path / "set.tar", [(f"{k}/{i}.png", png(i)) for k in "ab" for i in range(2)]))
    assert found.classes == ("a", "b")


def test_train_and_test_shards(tmp_path):
    for split, first in (("train", 0), ("test", 100)):
        tar(tmp_path / f"{split}-0.tar", samples(first, 4))
    assert load_images(tmp_path).pixels.max() == 3
    assert load_images(tmp_path, split="test").pixels.min() == 100
    assert "expected split 'train'" in refusal(tmp_path / "train-0.tar", split="test")


def test_shards_that_are_refused(tmp_path):
    good = samples(0, 4)
    link = tarfile.TarInfo("9.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    assert "link or a device" in refusal(tar(tmp_path / "a.tar", good, link))
    assert "'5' has no label" in refusal(tar(tmp_path / "b.tar", [*good, ("5.png", png(1))]))
    assert "'5' has no image" in refusal(tar(tmp_path / "c.tar", [*good, ("5.cls", b"1")]))
    assert "no label; expected" in refusal(tar(tmp_path / "d.tar", [*good, ("5.png", png(1)), ("5.json", b"{}")]))
    assert "no JSON" in refusal(tar(tmp_path / "e.tar", [*good, ("5.png", png(1)), ("5.json", b"[" * 9999)]))
    assert "bytes; expected a label" in refusal(tar(tmp_path / "f.tar", [*good, ("5.cls", bytes(2**20 + 1))]))
    assert "0009: not an image" in refusal(tar(tmp_path / "g.tar", [*good, ("0009.png", b"x"), ("0009.cls", b"1")]))
    whole = tar(tmp_path / "h.tar", good).read_bytes()
    for keep in (1700, 4608, 8 * 1024):
        (tmp_path / "h.tar").write_bytes(whole[:keep])
        refusal(tmp_path / "h.tar")
    assert "i-1.tar: does not exist" in refusal(tar(tmp_path / "i-0.tar", good).with_name("i-{0..3}.tar"))
    assert "rising range" in refusal(tmp_path / "i-{0..999999999}.tar")
    assert "does not exist" in refusal(tmp_path / "nothing-*.tar")


needs_arrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow (extra arrow)")


def save_to_disk(folder: Path, *, names: list[str] | None = None, nothing: bool = False) -> Path:
    """What `datasets.Dataset.save_to_disk` writes, in two files."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    files = []
    for part in range(2):
        values = range(3 * part, 3 * part + 3)
        rows = [{"bytes": None if nothing else png(v), "path": f"{v}.png"} for v in values]
        table = pa.table({"image": pa.array(rows, kind), "label": pa.array([v % 2 for v in values], pa.int64())})
        files.append({"filename": f"data-0000{part}-of-00002.arrow"})
        with pa.ipc.new_stream(folder / files[-1]["filename"], table.schema) as stream:
            stream.write_table(table)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_indices_files": None}))
    return folder


@needs_arrow
def test_a_dataset_on_disk(tmp_path):
    found = load_images(save_to_disk(tmp_path / "set", names=["zebra", "ape"]))
    assert found.pixels[:, 0, 0, 0].tolist() == list(range(6)) and found.classes == ("zebra", "ape")
    assert list(found.ids) == [f"{v}.png" for v in range(6)]
    assert load_images(tmp_path / "set", size=8).shape == (1, 8, 8)
    assert "expected split 'train'" in refusal(tmp_path / "set", split="test")


@needs_arrow
def test_a_dict_of_datasets_on_disk(tmp_path):
    save_to_disk(tmp_path / "all" / "train")
    save_to_disk(tmp_path / "all" / "validation")
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert len(load_images(tmp_path / "all")) == 6
    assert "holds no split 'test'" in refusal(tmp_path / "all", split="test")


@needs_arrow
def test_datasets_on_disk_that_are_refused(tmp_path):
    assert "holds no image bytes" in refusal(save_to_disk(tmp_path / "a", nothing=True))
    folder = save_to_disk(tmp_path / "b")
    state = json.loads((folder / "state.json").read_text())
    for change in (
        {"_indices_files": [{"filename": "x"}]},
        {"_data_files": [{"filename": "../x"}]},
        {"_data_files": 3},
    ):
        (folder / "state.json").write_text(json.dumps({**state, **change}))
        refusal(folder)
    (folder / "state.json").write_text(json.dumps(state))
    file = folder / "data-00001-of-00002.arrow"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for keep in (0, 100, len(whole) // 2):
        file.write_bytes(whole[:keep])
        refusal(folder)
    for _ in range(30):
        harmed = bytearray(whole)
        harmed[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(harmed)
        try:
            load_images(folder)
        except DoorwardError as error:
            assert "\n" not in str(error)


def test_without_pyarrow_one_line_says_so(tmp_path, monkeypatch):
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / name).write_text("{}")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pyarrow" else find(name, *rest)
    )
    assert "pip install 'doorward[arrow]'" in refusal(tmp_path)
