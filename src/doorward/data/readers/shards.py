"""WebDataset: tar files of pairs KEY.jpg and KEY.cls (or .json, .txt), read in place, never unpacked."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from doorward.core.errors import DoorwardError, show
from doorward.core.ids import distinct
from doorward.core.images import ImageSet
from doorward.core.progress import display
from doorward.data.checks import Split, guarded, name_labels, text_labels
from doorward.data.limits import MAX_ENCODED, MAX_ENTRIES, MAX_NAME
from doorward.data.pictures import Pictures, files_state, read_pictures
from doorward.data.readers.decode import ENDINGS, Data, Slice
from doorward.data.readers.tars import entry_name, expect_end, members, opened_tar
from doorward.data.reading import Reading

_LABELS = ("cls", "json", "txt")  # the first that a sample has counts
_FIELDS = ("label", "cls", "class", "class_name", "target")
_MAX_LABEL = 2**20  # bytes
_LOOKED_AT = 50  # entries that tell shards from archives of class folders
_MAX_SHARDS = 100_000
_EXPECTED = "a whole, uncompressed .tar with pairs KEY.jpg and KEY.cls (or .json, .txt)"


@dataclass
class _Samples:
    """What the shards hold, in order."""

    images: list[Slice] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def expanded(path: Path) -> list[Path]:
    """The files that a pattern such as ``shards-{000..003}.tar`` or ``shards-*.tar`` names, in order; may be none."""
    name, folder = path.name, path.parent
    if not name.lower().endswith(".tar"):
        return []
    if span := re.fullmatch(r"(.*)\{(\d{1,9})\.\.(\d{1,9})\}(.*)", name):
        first, low, high, last = span.groups()
        if not int(low) <= int(high) < int(low) + _MAX_SHARDS:
            raise DoorwardError(f"{show(path)}: from {low} to {high}; expected a rising range of at most {_MAX_SHARDS}")
        found = [folder / f"{first}{n:0{len(low)}}{last}" for n in range(int(low), int(high) + 1)]
        if missing := next((f for f in found if not f.is_file()), None):
            raise DoorwardError(f"{show(missing)}: does not exist; expected all shards of {show(name)}")
        return found
    return sorted(folder.glob(name)) if any(c in name for c in "*?[") and folder.is_dir() else []


def shards_in(path: Path, names: Sequence[str], split: Split) -> list[Path]:
    """The shards in a folder: those of the split where names say so, else all; none where there are no ``.tar``."""
    tars = [name for name in names if name.lower().endswith(".tar")]
    of_split = [name for name in tars if name.startswith(split)]
    chosen = of_split or tars
    return [path / name for name in chosen] if chosen and is_shard(path / chosen[0]) else []


def is_shard(path: Path) -> bool:
    """True for a tar file whose first entries are images and labels of one key."""
    if not path.name.lower().endswith(".tar") or not path.is_file():
        return False
    images, labels = set(), set()
    try:
        with opened_tar(path, packed=False) as archive:
            for number, member in enumerate(members(archive, path, MAX_ENTRIES)):
                key, ending = _key(member.name)
                if f".{ending}" in ENDINGS:
                    images.add(key)
                elif ending in _LABELS:
                    labels.add(key)
                if images & labels or number >= _LOOKED_AT:
                    break
    except (tarfile.TarError, OSError, ValueError, RecursionError):
        return False
    return bool(images & labels)


def _key(name: str) -> tuple[str, str]:
    """``a/b.c.jpg`` is a part of sample ``a/b``, as WebDataset splits names; of its ending the last piece."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.parent / stem), ending.lower().rpartition(".")[2]


def read_shards(shards: Sequence[Path], where: Path, reading: Reading) -> ImageSet:
    """Read WebDataset shards; ids are ``SHARD/KEY``.

    A label is what stands in KEY.cls (a number or a name), in the field ``label``, ``cls``, ``class``, ``class_name``
    or ``target`` of KEY.json, or in KEY.txt.

    Raises:
        DoorwardError: a link or a device among the entries, a sample without image or label, a broken tar.
    """
    samples = _Samples()
    with display() as progress:
        for number, shard in enumerate(shards, 1):
            with guarded(shard, _EXPECTED):
                _scan(shard, samples)
            progress("looking into shards", number, len(shards))
    targets, classes = name_labels(text_labels(samples.labels), len(samples.ids), None, where)

    def items(many: int) -> Iterator[Sequence[Data]]:
        for start in range(0, len(samples.images), many):
            yield samples.images[start : start + many]

    def state() -> tuple[str, int]:
        return files_state("", [str(shard.absolute())[1:] for shard in shards])

    return read_pictures(Pictures(where, targets, classes, distinct(samples.ids), items, state), reading)


def _scan(shard: Path, samples: _Samples) -> None:
    """Where the images of one shard lie, and their labels; the entries of one sample follow each other."""
    key, image, labels, seen = "", None, dict[str, str](), 0
    with opened_tar(shard, packed=False) as archive:
        for member in members(archive, shard, 2 * MAX_ENTRIES):
            seen += 1
            if len(samples.ids) + seen > 2 * MAX_ENTRIES:
                raise DoorwardError(f"{show(shard)}: more than {MAX_ENTRIES} entries; expected fewer")
            told = entry_name(shard, member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise DoorwardError(f"{told} is a link or a device; expected files")
            name, ending = _key(member.name)
            if name != key:
                _add(shard, key, image, labels, samples)
                key, image, labels = name, None, {}
            if f".{ending}" in ENDINGS and image is None:
                if member.size > MAX_ENCODED:
                    raise DoorwardError(f"{told}: {member.size:,} bytes; expected at most {MAX_ENCODED:,}")
                image = Slice(str(shard), member.offset_data, member.size)
            elif ending in _LABELS:
                labels[ending] = _label(archive, member, ending, told)
        _add(shard, key, image, labels, samples)
        expect_end(archive, shard)


def _add(shard: Path, key: str, image: Slice | None, labels: dict[str, str], samples: _Samples) -> None:
    if image is None and not labels:
        return
    label = next((labels[ending] for ending in _LABELS if ending in labels), None)
    if image is None or label is None:
        missing = "image" if image is None else "label"
        raise DoorwardError(f"{entry_name(shard, key)} has no {missing}; expected pairs such as KEY.jpg and KEY.cls")
    samples.images.append(image)
    samples.ids.append(f"{shard.name.removesuffix('.tar')}/{key}")
    samples.labels.append(label)


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str, told: str) -> str:
    if member.size > _MAX_LABEL:
        raise DoorwardError(f"{told}: {member.size} bytes; expected a label")
    source = archive.extractfile(member)
    content = source.read().decode("utf-8").strip() if source else ""
    if ending != "json":
        return _short(content, told)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise DoorwardError(f"{told}: no JSON; expected an object with one of {', '.join(_FIELDS)}") from None
    value = next((found[name] for name in _FIELDS if name in found), None) if isinstance(found, dict) else found
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DoorwardError(f"{told}: no label; expected a number or text in one of {', '.join(_FIELDS)}")
    return _short(str(value), told)


def _short(label: str, told: str) -> str:
    if len(label) > MAX_NAME:
        raise DoorwardError(f"{told}: a label of {len(label):,} characters; expected at most {MAX_NAME}")
    return label
