"""`export_images`: a set back into the user's hands; whole or absent, and nothing is ever deleted or replaced."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.core.opening import open_file
from doorward.core.progress import display
from doorward.data.limits import MAX_ENCODED
from doorward.data.readers.decode import ENDINGS
from doorward.data.whole import write_whole

Format = Literal["folder", "csv", "parquet", "npz", "ids"]

_PART_BYTES = 128 * 2**20  # of encoded images in one Parquet file
_LONGEST = 120  # characters of a name within a file name that is made here


def export_images(
    images: ImageSet,
    target: Path | str,
    format: Format = "folder",
    *,
    source: Path | str | None = None,
    link: bool = False,
) -> Path:
    """Write a set in a form that other programs read.

    Args:
        images: the set, such as what a cleanser left.
        target: a folder for ``folder``, ``csv`` and ``parquet``, a file for ``npz`` and ``ids``; must not exist yet.
        format: ``folder``, one subfolder per class; ``csv``, the same with a manifest ``images.csv``; ``parquet``, with
            the images inside, as the Hugging Face Hub has them; ``npz``, arrays; ``ids``, a text file with one name a
            line. For the first three the original files are taken, whatever size they were read in, where the set came
            from files; else PNG is written.
        source: the folder that the ids are relative to, where the set does not know it.
        link: hard links to the original files in place of copies where the file system can; an edit of one then
            changes the other.

    Returns:
        The target.

    Raises:
        OutputExistsError: the target is there already.
        DoorwardError: an original file that is gone, no room, a class name that cannot be a folder's.
    """
    writers: dict[str, Callable[[_Export, Path], None]] = {
        "folder": _folder, "csv": _csv, "parquet": _parquet, "npz": _npz, "ids": _ids,
    }  # fmt: skip
    if format not in writers:
        raise DoorwardError(f"format {format!r}; expected one of {', '.join(writers)}")
    target = Path(target).absolute()
    job = _Export(images, _root(images, source), link)
    write_whole(target, lambda partial: writers[format](job, partial))
    return target


def _root(images: ImageSet, source: Path | str | None) -> Path | None:
    """Where the original files lie; None for a set that did not come from files."""
    if not images.named:
        return None
    given = source if source is not None else images.provenance.get("root")
    if given is None:
        return None
    root = Path(str(given)).expanduser()
    root = root.parent if root.is_file() else root
    if not root.is_dir():
        raise DoorwardError(f"{show(root)}: no folder; expected the one that held the pictures")
    return root.resolve()


class _Export:
    """A set with the files it came from."""

    def __init__(self, images: ImageSet, root: Path | None, link: bool) -> None:
        self.images, self.root, self.link = images, root, link
        prefix = images.provenance.get("folders")
        self._prefix = f"{prefix}/" if isinstance(prefix, str) and prefix else ""
        self._by_class = isinstance(prefix, str)
        self._taken: set[str] = set()

    def names(self) -> Iterator[tuple[int, str, Path | None]]:
        """Index, path below the exported folder and original file of every image; names are all different."""
        width = len(str(len(self.images) - 1))
        plain = not self.images.named
        for index, (name, label) in enumerate(zip(self.images.ids, self.images.labels.tolist(), strict=True)):
            kind = _folder_name(self.images.classes[label])
            original = None if self.root is None else _original(self.root, name)
            if original is not None:
                below = re.sub(r"#\d+$", "", name) if not (self.root / name).exists() else name  # type: ignore[operator]
                below = below.removeprefix(self._prefix)
                below = below if self._by_class and below.startswith(f"{kind}/") else f"{kind}/{below}"
            else:
                told = "" if plain else "-" + re.sub(r"[^\w.-]+", "_", name.rpartition("/")[2])[:_LONGEST]
                below = f"{kind}/{index:0{width}d}{told.removesuffix('.png')}.png"
            yield index, self._free(below), original

    def _free(self, name: str) -> str:
        """The name, or with a number before its ending where it is taken."""
        stem, dot, ending = name.rpartition(".")
        found, number = name, 1
        while found in self._taken:
            number += 1
            found = f"{stem}-{number}{dot}{ending}"
        self._taken.add(found)
        return found

    def encoded(self, index: int, original: Path | None) -> bytes:
        """The file of an image: the original one, else a PNG of its pixels."""
        if original is not None:
            with open_file(original, most=MAX_ENCODED, inside=self.root) as file:
                return file.read()
        buffer, pixels = io.BytesIO(), self.images.pixels[index]
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
        return buffer.getvalue()

    def write(self, place: Path, index: int, original: Path | None) -> None:
        """Write one image to a path that is free."""
        place.parent.mkdir(parents=True, exist_ok=True)
        if original is None:
            place.write_bytes(self.encoded(index, None))
            return
        if self.link:
            with suppress(OSError):  # another file system, or one without links
                place.hardlink_to(original)
                return
        shutil.copy2(original, place)


def _folder_name(name: str) -> str:
    if name.startswith(".") or len(name.encode()) > 255:
        raise DoorwardError(f"class {name!r} cannot be a folder; expected a name without a leading dot (npz keeps it)")
    return name


def _original(root: Path, name: str) -> Path:
    """The file of an id, which must lie inside the root and be an image by its name."""
    plain = re.sub(r"#\d+$", "", name)
    for candidate in dict.fromkeys((name, plain)):
        path = root / candidate
        with suppress(OSError, ValueError):
            if path.is_file():
                if not path.resolve().is_relative_to(root) or path.suffix.lower() not in ENDINGS:
                    raise DoorwardError(f"{show(name)}: not an image inside {show(root)}; expected one")
                return path.resolve()
    raise DoorwardError(f"{show(root)}: holds no {show(name)}; expected the pictures as they were read")


def _folder(job: _Export, partial: Path) -> None:
    _write_files(job, partial)


def _csv(job: _Export, partial: Path) -> None:
    names = _write_files(job, partial)
    with (partial / "images.csv").open("x", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows((name, job.images.classes[k]) for name, k in zip(names, job.images.labels.tolist(), strict=True))


def _write_files(job: _Export, partial: Path) -> list[str]:
    partial.mkdir()
    names = []
    with display() as progress:
        for index, name, original in job.names():
            job.write(partial / name, index, original)
            names.append(name)
            progress("exporting", index + 1, len(job.images))
            if index % 4096 == 0:
                release(job.images.pixels)
    return names


def _parquet(job: _Export, partial: Path) -> None:
    partial.mkdir()
    rows: list[tuple[str, str, bytes, int]] = []
    parts, held = 0, 0
    with display() as progress:
        for index, name, original in job.names():
            data = job.encoded(index, original)
            rows.append((job.images.ids[index], name, data, int(job.images.labels[index])))
            held += len(data)
            progress("exporting", index + 1, len(job.images))
            if held >= _PART_BYTES or index == len(job.images) - 1:
                _write_part(partial / f"{parts:05d}", rows, job.images.classes)
                parts, held, rows = parts + 1, 0, []
                release(job.images.pixels)
    for part in range(parts):
        (partial / f"{part:05d}").rename(partial / f"train-{part:05d}-of-{parts:05d}.parquet")


def _write_part(path: Path, rows: list[tuple[str, str, bytes, int]], classes: tuple[str, ...]) -> None:
    """One file as the Hub has them, with the names of the classes in its metadata."""
    import duckdb

    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
    }
    about = json.dumps({"info": {"features": features}}).replace("'", "''")
    ids, names, data, labels = (np.array(column, dtype=object) for column in zip(*rows, strict=True))
    with duckdb.connect() as connection:
        connection.register("rows", {"id": ids, "name": names, "data": data, "label": labels.astype(np.int64)})
        select = "SELECT id, {'bytes': data, 'path': name} AS image, label FROM rows"
        quoted = str(path).replace("'", "''")
        connection.execute(f"COPY ({select}) TO '{quoted}' (FORMAT parquet, KV_METADATA {{huggingface: '{about}'}})")


def _npz(job: _Export, partial: Path) -> None:
    images = job.images
    more: dict[str, Any] = {"ids": np.array(list(images.ids))} if images.named else {}
    with partial.open("xb") as file:
        np.savez(file, images=images.pixels, labels=images.labels, classes=np.array(images.classes), **more)
    release(images.pixels)


def _ids(job: _Export, partial: Path) -> None:
    with partial.open("x", encoding="utf-8") as file:
        file.writelines(name.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for name in job.images.ids)
