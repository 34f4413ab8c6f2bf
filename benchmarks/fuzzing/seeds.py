"""One small whole file for every reader, made by code: what is beside it, what is damaged, and what reads it."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.damage import mended_png, mended_tar

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Seed:
    """What a reader is tried on.

    Args:
        files: whole, by their path in the case's folder.
        damaged: paths of those that are damaged, one in every case.
        source: what is opened, relative to the case's folder.
        read: a name in `READERS`.
        mend: of a format's own checksums; or None.
        pack: what a damaged file is then packed with, so that its packing is whole; or None.
    """

    files: Files
    damaged: tuple[str, ...]
    source: str
    read: str = "images"
    mend: Callable[[bytes], bytes] | None = None
    pack: Callable[[bytes], bytes] | None = None

    def whole(self, path: str) -> bytes:
        """The file as it is without any damage."""
        data = self.files[path]
        return self.pack(data) if self.pack is not None and path in self.damaged else data


def _images(path: Path) -> object:
    from doorward import load_images

    return load_images(path)


def _small(path: Path) -> object:
    from doorward import load_images

    return load_images(path, size=8)


def _weights(path: Path) -> object:
    from torch import nn

    from doorward import load_model

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.output = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Any) -> Any:
            return self.output(self.hidden(x.flatten(1)).relu())

    return load_model(path, arch=Net, shape=(1, 2, 2), classes=2)


def _folder(path: Path) -> object:
    from doorward import load_model

    return load_model(path)


def _verify(path: Path) -> object:
    from doorward import verify

    return verify(path)


def _certificate(path: Path) -> object:
    from doorward import Certificate

    return Certificate.load(path)


def _attack(path: Path) -> object:
    from doorward.attacks.files import load_attack

    return load_attack(path)


def _run(path: Path) -> object:
    from doorward.cleansers.results import Cleansing

    return Cleansing.load(path)


def _trigger(path: Path) -> object:
    from doorward import Trigger

    return Trigger.load(path)


READERS: dict[str, Callable[[Path], object]] = {
    "images": _images, "small": _small, "weights": _weights, "classifier": _folder, "verify": _verify,
    "certificate": _certificate, "attack": _attack, "run": _run, "trigger": _trigger,
}  # fmt: skip


def _buffer(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _picture(kind: str, **more: Any) -> bytes:
    from PIL import Image

    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    return _buffer(lambda f: Image.fromarray(pixels).save(f, kind, **more))


def _tar(entries: Files, mode: str = "w") -> bytes:
    def write(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for name, data in entries.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                info.pax_headers = {"comment": "é" * 9} if name.endswith("1.png") else {}
                archive.addfile(info, io.BytesIO(data))

    return _buffer(write)


def packed_gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def packed_npz(data: bytes) -> bytes:
    """An array of images between whole ones of labels and of class names."""
    labels = _buffer(lambda f: np.save(f, np.arange(4) % 2))
    return _zip(
        {"images.npy": data, "labels.npy": labels, "classes.npy": _buffer(lambda f: np.save(f, ["cat", "dog"]))}
    )


def _zip(entries: Files) -> bytes:
    def write(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(zipfile.ZipInfo(name), data)

    return _buffer(write)


def _parquet(folder: Path, select: str) -> bytes:
    import duckdb

    path = folder / "seed.parquet"
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def _pictures() -> Iterator[tuple[str, Seed]]:
    png = _picture("PNG")
    others = {f"{c}/{k}.png": png for c in "ab" for k in (1, 2)}
    for kind, ending, mend in (
        ("PNG", "png", mended_png), ("JPEG", "jpg", None), ("WEBP", "webp", None), ("BMP", "bmp", None),
        ("GIF", "gif", None),
    ):  # fmt: skip
        files = {f"set/{name}": data for name, data in {**others, f"a/0.{ending}": _picture(kind)}.items()}
        read = "images" if kind == "PNG" else "small"
        yield f"folder, {ending}", Seed(files, (f"set/a/0.{ending}",), "set", read, mend)


def _tables(folder: Path) -> Iterator[tuple[str, Seed]]:
    png = _picture("PNG")
    rows = b"path,label\n0.png,cat\n0.png,cat\n0.png,dog\n0.png,dog\n"
    yield "csv", Seed({"set.csv": rows, "0.png": png}, ("set.csv",), "set.csv")
    told = f"SELECT unhex('{png.hex()}') AS image, range % 2 AS label, range::VARCHAR AS id FROM range(4)"
    yield "parquet", Seed({"set.parquet": _parquet(folder, told)}, ("set.parquet",), "set.parquet")
    told = "SELECT '0.png' AS path, CASE WHEN range < 2 THEN 'cat' ELSE 'dog' END AS label FROM range(4)"
    files = {"set.parquet": _parquet(folder, told), "0.png": png}
    yield "parquet, manifest", Seed(files, ("set.parquet",), "set.parquet")


def _arrays() -> Iterator[tuple[str, Seed]]:
    pixels, labels = np.arange(100, dtype=np.uint8).reshape(4, 5, 5), np.arange(4) % 2
    names = {"classes": np.array(["cat", "dog"]), "ids": np.array(list("wxyz"))}
    packed = _buffer(lambda f: np.savez_compressed(f, images=pixels, labels=labels, **names))
    plain = _buffer(lambda f: np.savez(f, images=pixels, labels=labels, **names))
    yield "npz", Seed({"set.npz": plain}, ("set.npz",), "set.npz")
    array = {"set.npz": _buffer(lambda f: np.save(f, pixels))}
    yield "npz, inside", Seed(array, ("set.npz",), "set.npz", pack=packed_npz)
    yield "npz, packed", Seed({"set.npz": packed}, ("set.npz",), "set.npz")
    idx = ("set/train-images-idx3-ubyte", "set/train-labels-idx1-ubyte")
    raw = {idx[0]: struct.pack(">4I", 0x803, 4, 5, 5) + pixels.tobytes()}
    raw[idx[1]] = struct.pack(">2I", 0x801, 4) + labels.astype(np.uint8).tobytes()
    yield "idx", Seed(raw, idx, "set")
    zipped = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in raw.items()}
    yield "idx, gz", Seed(zipped, tuple(zipped), "set")
    yield "idx, gz inside", Seed({f"{n}.gz": d for n, d in raw.items()}, tuple(zipped), "set", pack=packed_gzip)
    records = np.repeat(np.arange(4, dtype=np.uint8) % 2, 3073).tobytes()
    cifar = {"set/data_batch_1.bin": records, "set/batches.meta.txt": b"cat\ndog\n"}
    yield "cifar", Seed(cifar, tuple(cifar), "set")
    from doorward import ImageSet

    with tempfile.TemporaryDirectory() as place:
        ImageSet(pixels[..., None], labels, ("cat", "dog"), ids=("w", "x", "y", "z")).save(place)
        saved = {f"set/{path.name}": path.read_bytes() for path in Path(place).iterdir()}
    yield "saved set, json", Seed(saved, ("set/images.json", "set/ids.jsonl"), "set")
    yield "saved set, npy", Seed(saved, ("set/images.npy", "set/labels.npy"), "set")


def _archives() -> Iterator[tuple[str, Seed]]:
    png = _picture("PNG")
    entries = {f"{c}/{k}.png": png for c in "ab" for k in (0, 1)}
    yield "tar", Seed({"set.tar": _tar(entries)}, ("set.tar",), "set.tar", mend=mended_tar)
    yield "tar.gz", Seed({"set.tar.gz": _tar(entries, "w:gz")}, ("set.tar.gz",), "set.tar.gz")
    inner = {"set.tar.gz": _tar(entries)}  # damaged inside, then packed
    yield "tar.gz, inside", Seed(inner, ("set.tar.gz",), "set.tar.gz", mend=mended_tar, pack=packed_gzip)
    yield "zip", Seed({"set.zip": _zip(entries)}, ("set.zip",), "set.zip")
    samples = {f"{k}.{e}": d for k in range(4) for e, d in (("png", png), ("json", b'{"label": %d}' % (k % 2)))}
    yield "shards", Seed({"set/0.tar": _tar(samples)}, ("set/0.tar",), "set", mend=mended_tar)
    if importlib.util.find_spec("pyarrow") is not None:
        yield "arrow", _arrow(png)


def _arrow(png: bytes) -> Seed:
    import pyarrow as pa

    image = pa.array([{"bytes": png, "path": f"{k}.png"} for k in range(4)])
    table = pa.table({"image": image, "label": pa.array([0, 0, 1, 1])})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data.arrow"}], "_indices_files": None}
    info = {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}
    files = {"set/data.arrow": sink.getvalue()}
    files |= {"set/state.json": json.dumps(state).encode(), "set/dataset_info.json": json.dumps(info).encode()}
    return Seed(files, ("set/data.arrow", "set/data.arrow", *files), "set")


def _models(folder: Path) -> Iterator[tuple[str, Seed]]:
    import torch
    from safetensors.torch import save

    from doorward import Classifier
    from doorward.models.files import save_classifier
    from doorward.models.nets.catalogue import build

    shapes = {"hidden.weight": (3, 4), "hidden.bias": (3,), "output.weight": (2, 3), "output.bias": (2,)}
    state = {name: torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape) for name, shape in shapes.items()}
    yield "safetensors", Seed({"w.safetensors": save(state)}, ("w.safetensors",), "w.safetensors", "weights")
    held = _buffer(lambda f: torch.save({"state_dict": state, "epoch": 1}, f))
    yield "pt", Seed({"w.pt": held}, ("w.pt",), "w.pt", "weights")
    old = _buffer(lambda f: torch.save(state, f, _use_new_zipfile_serialization=False))
    yield "pt, old", Seed({"w.pt": old}, ("w.pt",), "w.pt", "weights")
    if importlib.util.find_spec("h5py") is not None:
        import h5py

        with h5py.File(folder / "w.h5", "w") as file:
            for name in ("hidden", "output"):
                file[f"{name}/{name}/kernel:0"] = state[f"{name}.weight"].T.contiguous().numpy()
                file[f"{name}/{name}/bias:0"] = state[f"{name}.bias"].numpy()
        yield "h5", Seed({"w.h5": (folder / "w.h5").read_bytes()}, ("w.h5",), "w.h5", "weights")
    torch.manual_seed(0)
    (folder / "model").mkdir()
    net = build("small-cnn", (1, 8, 8), 2).eval()
    save_classifier(Classifier(net, "small-cnn", ("a", "b"), (1, 8, 8), (0.0,), (1.0,)), folder / "model")
    files = {f"model/{path.name}": path.read_bytes() for path in (folder / "model").iterdir()}
    yield "classifier.json", Seed(files, ("model/classifier.json",), "model", "classifier")


def _results(folder: Path) -> Iterator[tuple[str, Seed]]:
    import torch

    from doorward import Classifier, ImageSet, Trigger, certify, cleanse
    from doorward.attacks.files import save_attack
    from doorward.attacks.plan import Attack, Pairing
    from doorward.models.nets.catalogue import build

    rng = np.random.default_rng(0)
    images = ImageSet(rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 2, ("a", "b"))
    for name, learner in (("votes", "two-layer"), ("exact", "mean-distance")):
        path = folder / f"{name}.json"
        certify(images, images.subset(np.arange(3)), learner, trials=20).save(path)
        one = {"certificate.json": path.read_bytes()}
        yield f"verify, {name}", Seed(one, tuple(one), "certificate.json", "verify")
        yield f"certificate, {name}", Seed(one, tuple(one), "certificate.json", "certificate")
    trigger = Trigger(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    trigger.save(folder / "t.safetensors")
    one = {"t.safetensors": (folder / "t.safetensors").read_bytes()}
    yield "trigger", Seed(one, tuple(one), "t.safetensors", "trigger")
    save_attack(Attack("badnet", (Pairing(trigger, 0, None),)), folder / "attack")
    files = {f"attack/{path.name}": path.read_bytes() for path in (folder / "attack").iterdir()}
    yield "attack.json", Seed(files, tuple(files), "attack", "attack")
    net = build("small-cnn", (1, 8, 8), 2).eval()
    cleanse(images, Classifier(net, "small-cnn", ("a", "b"), (1, 8, 8), (0.0,), (1.0,)), ["spectral"]).save(
        folder / "run"
    )
    files = {f"run/{path.name}": path.read_bytes() for path in (folder / "run").iterdir()}
    yield "run.json", Seed(files, ("run/run.json",), "run", "run")
    yield "samples.parquet", Seed(files, ("run/samples.parquet", "run/thumbnails.npy"), "run", "run")


def make() -> dict[str, Seed]:
    """Every seed by the name of its reader."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        return dict(
            [*_pictures(), *_tables(folder), *_arrays(), *_archives(), *_models(folder), *_results(folder)]
        )  # fmt: skip
