"""Checks that every reader shares: names, labels, and one clear line for whatever a broken file does to a decoder."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.data.limits import MAX_CLASSES, MAX_IMAGES, MAX_NAME

Split = Literal["train", "test"]

_REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
_TURNS_TEXT_ROUND = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@contextmanager
def guarded(where: object, expected: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a broken or hostile file into one line that says what was expected."""
    try:
        yield
    except DoorwardError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, MemoryError):
            reason = "more than the memory there is"
        first = show((reason or type(error).__name__).strip().split("\n")[0])
        raise DoorwardError(f"{show(where)}: {first}; expected {expected}") from error


def class_names(names: Sequence[object], where: object) -> tuple[str, ...]:
    """Class names, each printable, at most 100 characters, without path separators, all different."""
    found = tuple(str(name) for name in names)
    if len(found) > MAX_CLASSES:
        raise DoorwardError(f"{show(where)}: {len(found)} classes; expected at most {MAX_CLASSES}")
    for name in found:
        problem = _name_problem(name)
        if problem:
            raise DoorwardError(f"{show(where)}: class name {ascii(name)[:120]} {problem}")
    if len(set(found)) < len(found):
        twice, _ = Counter(found).most_common(1)[0]
        raise DoorwardError(f"{show(where)}: class name {twice!r} appears twice; expected different names")
    return found


def _name_problem(name: str) -> str:
    if not name.strip():
        return "is blank; expected a name"
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters; expected at most {MAX_NAME}"
    if "/" in name or "\\" in name:
        return "holds a path separator; expected a name without / and \\"
    if any(c in _TURNS_TEXT_ROUND or unicodedata.category(c) in _REFUSED_CATEGORIES for c in name):
        return "holds a control character; expected printable text"
    return ""


def name_labels(
    labels: NDArray[Any], count: int, names: Sequence[object] | None, where: object
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as int64 ``[N]`` and the class names.

    Args:
        labels: ``[N]`` or ``[N, 1]``; integers keep their numbers, text becomes classes in sorted order.
        count: N, the number of images.
        names: class names where the source has them; without them class k is called ``"k"``.
        where: the source, for messages.

    Raises:
        DoorwardError: another number of labels, another type, a label outside the class names, a refused name.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        shape = list(labels.shape)
        raise DoorwardError(f"{show(where)}: labels of shape {shape} for {count} images; expected one label per image")
    if count == 0:
        raise DoorwardError(f"{show(where)}: holds no images; expected at least two classes of two images")
    if count > MAX_IMAGES:
        raise DoorwardError(f"{show(where)}: {count:,} images; expected at most {MAX_IMAGES:,}")
    if labels.dtype.kind in "UT":
        texts = labels.tolist()
        known = sorted(set(texts)) if names is None else list(names)
        classes = class_names(known, where)
        return _numbered(texts, classes, where), classes
    if labels.dtype.kind not in "iu":
        raise DoorwardError(f"{show(where)}: labels of type {labels.dtype}; expected integers or text")
    return _check_range(labels, names, where)


def _numbered(texts: Sequence[str], classes: Sequence[str], where: object) -> NDArray[np.int64]:
    """Text labels as numbers of the classes, whose order decides them."""
    place = {name: i for i, name in enumerate(classes)}
    try:
        return np.fromiter((place[text] for text in texts), np.int64, len(texts))
    except KeyError as error:
        told = ascii(error.args[0])[:120]
        raise DoorwardError(f"{show(where)}: label {told}; expected one of {len(classes)} class names") from None


def _check_range(
    labels: NDArray[Any], names: Sequence[object] | None, where: object
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    low, high = int(labels.min()), int(labels.max())
    limit = MAX_CLASSES if names is None else len(names)
    if low < 0 or high >= limit:
        wrong = low if low < 0 else high
        raise DoorwardError(f"{show(where)}: label {wrong}; expected labels from 0 to {limit - 1}")
    known = class_names(names if names is not None else range(high + 1), where)
    return labels.astype(np.int64), known


def text_labels(labels: Sequence[str]) -> NDArray[Any]:
    """Labels written as text: integers when every one is a plain non-negative integer, else text of its own length.

    NumPy's own text is padded to the longest, so that one long label among many short ones would fill the memory.
    """
    known = set(labels)
    if known and all(t.isascii() and t.isdigit() and len(t) < 10 and str(int(t)) == t for t in known):
        return np.array([int(t) for t in labels], dtype=np.int64)
    return np.array(labels, dtype=np.dtypes.StringDType())


def check_auditable(labels: NDArray[np.int64], classes: Sequence[str], where: object) -> None:
    """Refuse a set that no method can audit: one class only, or a class with a single image.

    Every detector compares an image with the others of its class; one image alone has nothing to be compared with.
    Classes without any image are let through, so that labels keep the numbers that a classifier knows them by.
    """
    counts = np.bincount(labels, minlength=len(classes))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        only = classes[int(present[0])]
        raise DoorwardError(f"{show(where)}: every image is of class {only!r}; expected at least two classes")
    alone = np.flatnonzero(counts == 1)
    if len(alone):
        name = classes[int(alone[0])]
        raise DoorwardError(
            f"{show(where)}: class {name!r} has 1 image; expected at least 2 per class, "
            "because an image is audited by comparing it with the others of its class"
        )
