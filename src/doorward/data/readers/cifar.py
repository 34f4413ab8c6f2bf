"""CIFAR-10 and CIFAR-100 as their author gives them out: the binary version and the Python version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data.assemble import assemble
from doorward.data.cache import file_state
from doorward.data.checks import Split, guarded, name_labels, show
from doorward.data.safe_pickle import loads

_SIDE = 32
_BYTES = 3 * _SIDE * _SIDE
_LARGEST_FILE = 2 * 2**30
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 100))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def find_binary(names: Sequence[str], split: Split) -> tuple[str, ...]:
    """Names of the binary version's files of a split: CIFAR-10's batches, or CIFAR-100's one file."""
    return _find(names, split, ".bin")


def find_python(names: Sequence[str], split: Split) -> tuple[str, ...]:
    """Names of the Python version's files of a split; CIFAR-100's are known by the file ``meta`` beside them."""
    return _find(names, split, "")


def _find(names: Sequence[str], split: Split, ending: str) -> tuple[str, ...]:
    present = set(names)
    if split == "test" and f"test_batch{ending}" in present:
        return (f"test_batch{ending}",)
    batches = tuple(b + ending for b in _BATCHES if b + ending in present)
    if split == "train" and batches:
        return batches
    hundred = f"{split}{ending}" in present and (ending == ".bin" or "meta" in present)
    return (f"{split}{ending}",) if hundred else ()


def _all_there(folder: Path, files: Sequence[str], ending: str) -> None:
    """Batches are numbered from 1 without a gap: an audit of a set with a hole would look whole."""
    if files[0].startswith("data_batch"):
        for expected in (b + ending for b in _BATCHES[: len(files)]):
            if expected not in files:
                raise DoorwardError(f"{show(folder)}: {expected} is missing; expected batches without a gap")


def read_binary(folder: Path, files: Sequence[str]) -> ImageSet:
    """Read the binary version: per image one label byte (CIFAR-100: coarse, fine), then 1,024 red, green, blue bytes.

    The class names come from ``batches.meta.txt`` or ``fine_label_names.txt`` beside it.

    Raises:
        DoorwardError: a file that is not whole records, a label outside the classes, a missing batch.
    """
    _all_there(folder, files, ".bin")
    extra = 1 if files[0].startswith(("data", "test_")) else 2
    record = extra + _BYTES
    maps = []
    for path in (folder / name for name in files):
        with guarded(path, f"a CIFAR binary file of records of {record} bytes"):
            size = path.stat().st_size
            if size == 0 or size % record:
                raise DoorwardError(f"{show(path)}: {size} bytes; expected a multiple of {record}")
            maps.append(np.memmap(path, np.uint8, "r").reshape(-1, record))
    names = _text_names(folder / ("batches.meta.txt" if extra == 1 else "fine_label_names.txt"), extra)
    targets = np.concatenate([found[:, extra - 1] for found in maps])
    return _assembled(folder, files, [found[:, extra:] for found in maps], targets, names)


def _text_names(path: Path, extra: int) -> list[str]:
    if not path.exists():
        return list(CIFAR10) if extra == 1 else [str(k) for k in range(100)]
    with guarded(path, "class names, one per line"):
        lines = path.read_text(encoding="utf-8").split("\n")
    return [line.strip() for line in lines if line.strip()]


def read_python(folder: Path, files: Sequence[str]) -> ImageSet:
    """Read the Python version, pickles of a dict with ``data`` uint8 ``[N, 3072]`` and ``labels`` or ``fine_labels``.

    The pickles are read by `safe_pickle`, which runs nothing that is written in them.

    Raises:
        DoorwardError: a pickle that holds anything but such data, a missing batch.
    """
    _all_there(folder, files, "")
    blocks, targets = [], []
    for path in (folder / name for name in files):
        data, labels = _batch(path)
        blocks.append(data)
        targets.append(labels)
    names = _pickled_names(folder)
    return _assembled(folder, files, blocks, np.concatenate(targets), names)


def _unpickled(path: Path) -> dict[str, Any]:
    with guarded(path, "a CIFAR batch"):
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise DoorwardError(f"{show(path)}: {size} bytes; expected at most {_LARGEST_FILE}")
        value = loads(path.read_bytes(), path)
    if not isinstance(value, dict):
        raise DoorwardError(f"{show(path)}: a pickled {type(value).__name__}; expected a dict with data and labels")
    return {k.decode("latin-1") if isinstance(k, bytes) else str(k): v for k, v in value.items()}


def _batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    found = _unpickled(path)
    data, labels = found.get("data"), found.get("fine_labels", found.get("labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _BYTES:
        raise DoorwardError(f"{show(path)}: no 'data' of bytes [N, {_BYTES}]; expected a CIFAR batch")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 2**31 for label in labels):
        raise DoorwardError(f"{show(path)}: no list 'labels' of class numbers; expected a CIFAR batch")
    if len(labels) != len(data):
        raise DoorwardError(f"{show(path)}: {len(labels)} labels for {len(data)} images; expected as many")
    return data, np.array(labels, np.int64)


def _pickled_names(folder: Path) -> list[str] | None:
    for name, key in (("batches.meta", "label_names"), ("meta", "fine_label_names")):
        if (folder / name).exists():
            names = _unpickled(folder / name).get(key)
            if not isinstance(names, list):
                raise DoorwardError(f"{show(folder / name)}: no list {key!r}; expected the class names")
            return [n.decode("latin-1") if isinstance(n, bytes) else str(n) for n in names]
    return None


def _assembled(
    folder: Path,
    files: Sequence[str],
    blocks: Sequence[NDArray[np.uint8]],
    targets: NDArray[Any],
    names: Sequence[str] | None,
) -> ImageSet:
    count = sum(map(len, blocks))
    labels, classes = name_labels(targets, count, names, folder)

    def fill(target: NDArray[np.uint8]) -> None:
        start = 0
        for block in blocks:
            planes = block.reshape(-1, 3, _SIDE, _SIDE)
            target[start : start + len(block)] = planes.transpose(0, 2, 3, 1)
            start += len(block)

    shape = (count, _SIDE, _SIDE, 3)
    return assemble(folder, shape, labels, classes, fill, key=lambda: file_state(folder / name for name in files))
