"""The rule of the method `mean-distance`, in integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from doorward.certification.exact.parts.hamming import Bits
from doorward.certification.smoothing.votes import ABSTAIN
from doorward.core.errors import DoorwardError

Ints = NDArray[np.int64]

EXACT = 1 << 53  # integers below this are exact in float64, also in the partial sums of a matrix product


@dataclass(frozen=True, eq=False)
class Rule:
    """A fitted rule, and what its certificate needs; label 0 counts +1, label 1 counts -1.

    Args:
        centred: int64 ``[N, p]``: blurred n X_ij - U_j, with U_j the number of training images that have pixel j.
        signs: int64 ``[N]``, +1 or -1.
        on: U, int64 ``[p]``.
        weights: V = sum_i s_i centred_ij, int64 ``[p]``: 2 n_0 n_1 times the difference of the class means, blurred.
        cap: clip for the weights. ``kernel``: sum of the blur's kernel.
    """

    centred: Ints
    signs: Ints
    on: Ints
    weights: Ints
    cap: int
    kernel: int

    @property
    def images(self) -> int:
        """Number of training images, n."""
        return len(self.signs)

    def mirrored(self) -> Rule:
        """The same rule with the two classes exchanged."""
        return replace(self, signs=-self.signs, weights=-self.weights)

    def scores(self, test: Bits) -> Ints:
        """Score ``[M]``: above 0 label 0, below 0 label 1."""
        clipped = np.clip(self.weights, -self.cap, self.cap)
        return self.images * product(test, clipped) - int(clipped @ self.on)

    def label(self, test: Bits) -> Ints:
        """Predicted label ``[M]``; ABSTAIN at a score of 0."""
        scores = self.scores(test)
        return np.where(scores == 0, ABSTAIN, (scores < 0).astype(np.int64))


def product(bits: Bits, matrix: Ints) -> Ints:
    """``bits @ matrix`` in float64, which is exact here (`fit` and `share_bits` see to the size)."""
    return np.asarray((bits.astype(np.float64) @ matrix.astype(np.float64)), dtype=np.int64)


def _blurred(values: Ints, shape: tuple[int, int, int], passes: int) -> Ints:
    """Rows ``[N, C H W]`` under the kernel (1, 2, 1) x (1, 2, 1), ``passes`` times; zeros beyond the border."""
    channels, height, width = shape
    grid = values.reshape(len(values), channels, height, width)
    for _ in range(passes):
        for axis in (2, 3):
            padding = [(0, 0)] * 4
            padding[axis] = (1, 1)
            padded = np.pad(grid, padding)
            size = grid.shape[axis]
            low, middle, high = (np.take(padded, np.arange(size) + i, axis=axis) for i in range(3))
            grid = low + 2 * middle + high
    return grid.reshape(values.shape)


def fit(train: Bits, labels: Ints, shape: tuple[int, int, int], blur: int, clip: int) -> Rule:
    """Fit the rule to training cells ``[N, p]`` of images of shape (C, H, W); see `MeanDistanceSettings`.

    Raises:
        DoorwardError: cells that do not make up such images, or too many for exact 64-bit arithmetic.
    """
    n, cells = train.shape
    if cells != int(np.prod(shape)):
        raise DoorwardError(f"mean-distance: {cells} cells; expected {np.prod(shape)}, images of shape {list(shape)}")
    kernel = 16**blur
    cap = clip * kernel * n * n // 200
    if 4 * cells * n * n * kernel >= EXACT or cells * cap * n >= 1 << 62:
        raise DoorwardError(
            f"mean-distance: {n} training images of {cells} cells; expected fewer, or less blur, for exact arithmetic"
        )
    on = train.sum(axis=0, dtype=np.int64)
    centred = _blurred(n * train.astype(np.int64) - on, shape, blur)
    signs = 1 - 2 * labels
    weights = (signs[:, None] * centred).sum(axis=0)
    return Rule(centred, signs, on, weights, max(1, cap), kernel)
