"""Manifests: CSV or Parquet tables with a path and a label per image."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.opening import open_file
from doorward.data.checks import guarded, name_labels, text_labels
from doorward.data.limits import MAX_IMAGES, MAX_NAME, MAX_PATH
from doorward.data.pictures import read_pictures
from doorward.data.readers.folder import of_files
from doorward.data.reading import Reading

_EXPECTED = "a CSV file with columns path and label"


def read_csv(path: Path, reading: Reading) -> ImageSet:
    """Read a CSV manifest: columns ``path`` (relative to the manifest's folder) and ``label``; others are ignored.

    Raises:
        DoorwardError: missing columns or values, a path that leaves the folder, a file that cannot be decoded.
    """
    paths: list[str] = []
    labels: list[str] = []
    known: dict[str, str] = {}
    with guarded(path, _EXPECTED), open_file(path) as raw:
        rows = csv.reader(TextIOWrapper(raw, "utf-8-sig", newline=""), strict=True)
        header = [name.strip().lower() for name in next(rows, [])]
        if "path" not in header or "label" not in header:
            raise DoorwardError(f"{show(path)}: columns {show(', '.join(header)) or 'none'}; expected {_EXPECTED}")
        at_path, at_label = header.index("path"), header.index("label")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise DoorwardError(
                    f"{show(path)}: line {rows.line_num} has {len(row)} fields; expected {len(header)} as in the header"
                )
            name, label = row[at_path].strip(), row[at_label].strip()
            if len(name) > MAX_PATH or len(label) > MAX_NAME or len(paths) >= MAX_IMAGES:
                raise DoorwardError(f"{show(path)}: line {rows.line_num} {_too_much(name, label)}")
            paths.append(name)
            labels.append(known.setdefault(label, label))  # every class name once
    return read_rows(path, paths, labels, reading)


def _too_much(name: str, label: str) -> str:
    if len(label) > MAX_NAME:
        return f"has a label of {len(label):,} characters; expected at most {MAX_NAME}"
    if len(name) > MAX_PATH:
        return f"has a path of {len(name):,} characters; expected at most {MAX_PATH:,}"
    return f"goes on after {MAX_IMAGES:,} images; expected at most as many"


def read_rows(
    manifest: Path, paths: Sequence[str], labels: Sequence[str], reading: Reading, names: Sequence[str] | None = None
) -> ImageSet:
    """The set that a manifest's rows describe."""
    targets, classes = name_labels(text_labels(labels), len(paths), names, manifest)
    return read_pictures(of_files(manifest, _checked(manifest, paths), paths, targets, classes, {}), reading)


def _checked(manifest: Path, paths: Sequence[str]) -> Path:
    """The manifest's folder, after a look whether every path is a file inside it, whatever links lie on the way."""
    root = manifest.resolve().parent
    known: dict[str, str] = {}
    for row, text in enumerate(paths, 1):
        folder, name = os.path.split(text)
        where = f"{show(manifest)}: row {row}: path {show(text)!r}"
        if not name or "\0" in text or text.startswith("/") or Path(text).is_absolute():
            raise DoorwardError(f"{where}; expected a file's path relative to {show(root)}")
        if folder not in known:
            known[folder] = os.path.realpath(root / folder)
        path = Path(known[folder], name)
        if name == ".." or not Path(known[folder]).is_relative_to(root):
            raise DoorwardError(f"{where} leaves {show(root)}; expected paths inside it")
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise DoorwardError(f"{where} is a symbolic link that leaves {show(root)}; expected paths inside it")
        if not path.is_file():
            raise DoorwardError(f"{where} is not a file; expected an image")
    return root
