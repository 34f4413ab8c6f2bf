"""Hamming distances between black-and-white images, in integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError

Bits = NDArray[np.uint8]  # [N, cells], 0 or 1
Distances = NDArray[np.int32]  # [M, N]

_PAIRS_PER_CHUNK = 1 << 22


def check_bits(bits: Bits, what: str) -> None:
    """Refuse cells that are not ``[N, cells]`` of zeros and ones."""
    if bits.ndim != 2 or bits.shape[0] == 0 or bits.shape[1] == 0:
        raise DoorwardError(f"{what}: cells of shape {list(bits.shape)}; expected [images, cells], neither of them 0")
    if bits.max() > 1:
        raise DoorwardError(f"{what}: a cell of value {bits.max()}; expected 0 or 1 (black or white)")


def _packed(bits: Bits) -> NDArray[np.uint64]:
    packed = np.packbits(bits, axis=1)
    words = np.zeros((len(bits), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view(np.uint64)


def hamming_distances(rows: Bits, columns: Bits) -> Distances:
    """Cells in which each of ``rows`` ``[M, p]`` differs from each of ``columns`` ``[N, p]``: int32 ``[M, N]``."""
    if rows.shape[1] != columns.shape[1]:
        raise DoorwardError(f"images of {rows.shape[1]} and of {columns.shape[1]} cells; expected the same number")
    left, right = _packed(rows), np.ascontiguousarray(_packed(columns).T)
    distances = np.zeros((len(rows), len(columns)), dtype=np.int32)
    step = max(1, _PAIRS_PER_CHUNK // len(columns))
    for start in range(0, len(rows), step):
        chunk = left[start : start + step]
        target = distances[start : start + step]
        for word in range(right.shape[0]):
            target += np.bitwise_count(chunk[:, word, None] ^ right[word])
    return distances
