"""CIFAR-10 and CIFAR-100 as their author gives them out: the binary version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.opening import check_file, read_text
from doorward.data.assemble import assemble
from doorward.data.cache import file_state
from doorward.data.checks import Split, guarded, name_labels
from doorward.data.limits import MAX_IMAGES

_SIDE = 32
_BYTES = 3 * _SIDE * _SIDE
_MAX_NAMES = 2**20  # bytes
_BATCHES = tuple(f"data_batch_{i}.bin" for i in range(1, 100))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def find_binary(names: Sequence[str], split: Split) -> tuple[str, ...]:
    """Names of the binary version's files of a split: CIFAR-10's batches, or CIFAR-100's one file."""
    present = set(names)
    if split == "test" and "test_batch.bin" in present:
        return ("test_batch.bin",)
    batches = tuple(name for name in _BATCHES if name in present)
    if split == "train" and batches:
        return batches
    return (f"{split}.bin",) if f"{split}.bin" in present else ()


def refuse_python_version(folder: Path, names: Sequence[str]) -> None:
    """Refuse the Python version, which consists of pickles; CIFAR-100's is known by the file ``meta`` beside it.

    Raises:
        DoorwardError: the folder holds it.
    """
    hundred = {"train", "test"} if "meta" in names else set[str]()
    for name in sorted({"data_batch_1", "test_batch", *hundred} & set(names)):
        if (folder / name).is_file():
            raise DoorwardError(
                f"{show(folder / name)}: CIFAR's Python version, a pickle, which is never read because it can run "
                "code; expected the binary version (files of .bin)"
            )


def _all_there(folder: Path, files: Sequence[str]) -> None:
    """Batches are numbered from 1 without a gap: an audit of a set with a hole would look whole."""
    if files[0].startswith("data_batch"):
        for expected in _BATCHES[: len(files)]:
            if expected not in files:
                raise DoorwardError(f"{show(folder)}: {expected} is missing; expected batches without a gap")


def read_binary(folder: Path, files: Sequence[str]) -> ImageSet:
    """Read the binary version: per image one label byte (CIFAR-100: coarse, fine), then 1,024 red, green, blue bytes.

    The class names come from ``batches.meta.txt`` or ``fine_label_names.txt`` beside it.

    Raises:
        DoorwardError: a file that is not whole records, a label outside the classes, a missing batch.
    """
    _all_there(folder, files)
    extra = 1 if files[0].startswith(("data", "test_")) else 2
    record = extra + _BYTES
    maps = []
    for path in (folder / name for name in files):
        with guarded(path, f"a CIFAR binary file of records of {record} bytes"):
            size = check_file(path)
            if size == 0 or size % record:
                raise DoorwardError(f"{show(path)}: {size} bytes; expected a multiple of {record}")
            maps.append(np.memmap(path, np.uint8, "r").reshape(-1, record))
    if sum(map(len, maps)) > MAX_IMAGES:
        raise DoorwardError(f"{show(folder)}: {sum(map(len, maps)):,} images; expected at most {MAX_IMAGES:,}")
    names = _text_names(folder / ("batches.meta.txt" if extra == 1 else "fine_label_names.txt"), extra)
    targets = np.concatenate([found[:, extra - 1] for found in maps])
    return _assembled(folder, files, [found[:, extra:] for found in maps], targets, names)


def _text_names(path: Path, extra: int) -> list[str]:
    if not path.exists():
        return list(CIFAR10) if extra == 1 else [str(k) for k in range(100)]
    with guarded(path, "class names, one per line"):
        lines = read_text(path, most=_MAX_NAMES, inside=path.parent).split("\n")
    return [line.strip() for line in lines if line.strip()]


def _assembled(
    folder: Path,
    files: Sequence[str],
    blocks: Sequence[NDArray[np.uint8]],
    targets: NDArray[Any],
    names: Sequence[str],
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
