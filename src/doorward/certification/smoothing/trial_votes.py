"""What each trial voted: a file that the certificate beside it binds by a hash, so that trials can be replayed.

The file is gzip over uint8 rows, one row per trial in their order, one byte per test image:
``numpy.frombuffer(gzip.open(FILE).read(), numpy.uint8).reshape(trials, images)``.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.files import atomic_write
from doorward.core.opening import open_file

NAME = "trial-votes.gz"
MOST_VOTES = 1 << 37  # votes in a file; reading them takes minutes
_CHUNK = 1 << 22  # votes read at a time

Row = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TrialVotes:
    """``counts`` int64 ``[m, K]``, summed over all rows of a file; ``rows``: what the trials asked for voted."""

    counts: NDArray[np.int64]
    rows: dict[int, Row]


def _digest(trials: int, images: int) -> hashlib._Hash:
    return hashlib.sha256(f"doorward-trial-votes-1 {trials} {images}\n".encode())


def write_trial_votes(path: Path | str, parts: Iterable[Row], trials: int, images: int) -> str:
    """Write the votes of all trials, in order; the file is whole or absent.

    Args:
        parts: uint8 ``[some trials, images]`` arrays, ``trials`` rows in all.

    Returns:
        SHA-256 over the votes and their number. It does not depend on how they are compressed.
    """
    digest, written = _digest(trials, images), 0

    def write(place: Path) -> None:
        nonlocal written
        with place.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            for part in parts:
                rows = np.ascontiguousarray(part, dtype=np.uint8).tobytes()
                digest.update(rows)
                file.write(rows)
                written += len(rows)

    atomic_write(path, write)
    if written != trials * images:
        raise DoorwardError(f"{path}: {written} votes; expected {trials} trials of {images} images")
    return digest.hexdigest()


def read_trial_votes(
    path: Path | str, sha256: str, *, trials: int, images: int, classes: int, wanted: Sequence[int] = ()
) -> TrialVotes:
    """Read all votes of a file that somebody else may have made, and check that it is the one that is bound.

    Args:
        sha256: what `write_trial_votes` returned.
        wanted: trials whose rows are returned.

    Raises:
        DoorwardError: no such file, cut short, longer than that, a label out of range, or another hash.
    """
    if trials * images > MOST_VOTES:
        raise DoorwardError(f"{show(path)}: {trials} trials of {images} images; expected at most {MOST_VOTES:,} votes")
    digest, step = _digest(trials, images), max(1, _CHUNK // images)
    counts, rows, asked = np.zeros(images * classes, dtype=np.int64), dict[int, Row](), sorted(set(wanted))
    offsets = np.arange(images, dtype=np.int64) * classes
    with open_file(path) as raw, gzip.GzipFile(fileobj=raw) as file:
        for start in range(0, trials, step):
            block = _exactly(file, min(step, trials - start) * images, path)
            digest.update(block)
            part = np.frombuffer(block, dtype=np.uint8).reshape(-1, images)
            if part.max() >= classes:
                raise DoorwardError(f"{show(path)}: label {part.max()}; expected labels below {classes}")
            counts += np.bincount((part + offsets).reshape(-1), minlength=len(counts))
            rows.update({j: part[j - start].copy() for j in asked if start <= j < start + len(part)})
        _exactly(file, 0, path)
    if digest.hexdigest() != sha256:
        raise DoorwardError(f"{show(path)}: is not the file that the certificate binds; expected SHA-256 {sha256}")
    return TrialVotes(counts.reshape(images, classes), rows)


def _exactly(file: gzip.GzipFile, size: int, path: Path | str) -> bytes:
    """So many bytes, or with size 0 the end of the file."""
    try:
        block = file.read(size or 1)
        while len(block) < size and (more := file.read(size - len(block))):
            block += more
    except (OSError, EOFError, zlib.error) as error:
        raise DoorwardError(f"{show(path)}: {show(error)}; expected the votes of all trials, in gzip") from None
    if len(block) != size:
        told = "longer than its certificate says" if len(block) > size else "cut short"
        raise DoorwardError(f"{show(path)}: is {told}; expected the votes of all trials, in gzip")
    return block
