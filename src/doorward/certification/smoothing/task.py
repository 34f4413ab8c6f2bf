"""What is smoothed: a training set, test images and the noise on them; and a block of noisy copies of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.certification.smoothing import noise as flip
from doorward.certification.smoothing.counts import MOST_CELLS, sampler
from doorward.certification.smoothing.noise import Noise
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet

Cells = NDArray[np.uint8]
_SUM_ROWS = 255  # that many zeros and ones still add up in one byte


@dataclass(frozen=True, eq=False)
class SmoothingTask:
    """The data vector v of the paper, section 3: training pixels X, training labels y, test images x.

    Args:
        images: uint8 ``[n, cells]``, values 0..d-1 of the noise on training pixels.
        labels: int64 ``[n]``, 0..K-1.
        tests: uint8 ``[m, cells]``, values 0..d-1.
        classes: K, at least two.
        noise: the noise on the three blocks; its label domain is K.
        shape: channels, height, width of one image; for learners that look at images as images.

    Raises:
        DoorwardError: values outside the domain, one class, no images, or blocks that do not fit each other.
    """

    images: Cells
    labels: NDArray[np.int64]
    tests: Cells
    classes: int
    noise: Noise
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        def expect(condition: bool, value: object, expected: str) -> None:
            if not condition:
                raise DoorwardError(f"certify: {value}; expected {expected}")

        cells = int(np.prod(self.shape))
        for name, block in (("training", self.images), ("test", self.tests)):
            expect(block.dtype == np.uint8, f"{name} images of type {block.dtype}", "uint8")
            expect(block.ndim == 2 and block.shape[1] == cells, f"{name} images {block.shape}", f"[images, {cells}]")
            expect(len(block) > 0, f"no {name} images", "at least one")
            expect(
                int(block.max()) < self.noise.train.domain,
                f"{name} pixel value {block.max()} with a domain of {self.noise.train.domain} values",
                "pixels below the domain size (binarise them, or give the domain)",
            )
        expect(2 <= self.classes <= 256, f"{self.classes} classes", "2 to 256 classes")
        expect(self.labels.shape == (len(self.images),), f"{self.labels.shape} labels", f"[{len(self.images)}]")
        expect(int(self.labels.min()) >= 0, f"label {self.labels.min()}", "labels of 0 or more")
        expect(int(self.labels.max()) < self.classes, f"label {self.labels.max()}", f"labels below {self.classes}")
        expect(
            self.noise.labels.domain == self.classes, f"label noise over {self.noise.labels.domain}", f"{self.classes}"
        )
        expect(self.noise.test.domain == self.noise.train.domain, "two pixel domains", "one for training and test")

    @property
    def domain(self) -> int:
        """d, the number of values that a pixel can take."""
        return self.noise.train.domain

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything that decides the votes."""
        digest = hashlib.sha256(json.dumps([self.classes, list(self.shape), self.noise.json()]).encode())
        for block in (self.images, self.labels.astype("<i8"), self.tests):
            digest.update(repr(block.shape).encode())
            digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()

    @cached_property
    def active_cells(self) -> NDArray[np.int64]:
        """Cells that are not 0 in every test image."""
        return np.flatnonzero(self.tests.any(axis=0))

    @cached_property
    def tests_by_cell(self) -> NDArray[np.float32]:
        """The active cells of the test images, as float32 ``[active, m]``."""
        return np.ascontiguousarray(self.tests[:, self.active_cells].T, dtype=np.float32)

    def with_tests(self, tests: Cells) -> SmoothingTask:
        """The same training set and noise with other test images: their votes come from the same models h_j."""
        return replace(self, tests=tests)


def cells_of(images: ImageSet, binarise: int | None = 128) -> Cells:
    """Pixels as rows of cells ``[N, C*H*W]``: 1 where the value is ``binarise`` or more; as they are when None."""
    rows = np.ascontiguousarray(images.pixels.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    return rows if binarise is None else (rows >= binarise).astype(np.uint8)


def draw_split(images: ImageSet, classes: Sequence[str], train: int, test: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """``train`` and ``test`` images of the named classes, disjoint, drawn at random by ``seed``; labels become 0..K-1.

    Raises:
        DoorwardError: an unknown or repeated class, fewer than two classes, or fewer images than asked.
    """
    chosen = [str(c) for c in classes] or list(images.classes)
    for name in chosen:
        if name not in images.classes:
            raise DoorwardError(f"class {name!r}: not in {images.name}; expected some of {', '.join(images.classes)}")
    if len(set(chosen)) < 2 or len(set(chosen)) != len(chosen):
        raise DoorwardError(f"classes {', '.join(chosen)}; expected at least two, each once")
    new_label = np.full(len(images.classes), -1, dtype=np.int64)
    new_label[[images.classes.index(name) for name in chosen]] = np.arange(len(chosen))
    rows = np.flatnonzero(new_label[images.labels] >= 0)
    if train < 1 or test < 1 or train + test > len(rows):
        raise DoorwardError(
            f"{train} training and {test} test images asked; {images.name} has {len(rows)} of the classes "
            f"{', '.join(chosen)}"
        )
    order = np.random.default_rng(seed).permutation(rows)

    def pick(which: NDArray[np.int64], name: str) -> ImageSet:
        return replace(images.subset(which, name), labels=new_label[images.labels[which]], classes=tuple(chosen))

    return pick(order[:train], f"{images.name}-train"), pick(order[train : train + test], f"{images.name}-test")


@dataclass(frozen=True, eq=False)
class NoisyBlock:
    """The noisy data of the trials ``start..stop-1``: trial j draws tau^j, epsilon^j and gamma^j of the paper.

    gamma^j is one vector per trial, shared by all test images, as in the paper. The guarantee of one image uses only
    the distribution of its own noise, which is the right one; the joint guarantee over images is a union bound (Holm,
    Bonferroni), which needs no independence. So the votes of an image do not depend on which others are with it.
    """

    task: SmoothingTask
    seed: int
    start: int
    stop: int
    device: str = "cpu"

    def __len__(self) -> int:
        return self.stop - self.start

    def parts(self, trials: int) -> list[NoisyBlock]:
        """The block cut into blocks of so many trials; on a GPU it stays whole."""
        if self.device != "cpu":
            return [self]
        starts = range(self.start, self.stop, trials)
        return [replace(self, start=start, stop=min(start + trials, self.stop)) for start in starts]

    @cached_property
    def pixels(self) -> Cells:
        """Noisy training pixels X + tau^j (mod d): uint8 ``[B, n, cells]``."""
        task = self.task
        drawn = self._pixel_noise(flip.TRAIN, task.images.size).reshape(len(self), *task.images.shape)
        if task.domain == 2:
            return np.bitwise_xor(drawn, task.images, out=drawn)
        return ((drawn.astype(np.uint16) + task.images) % task.domain).astype(np.uint8)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Noisy training labels y + epsilon^j (mod K): int64 ``[B, n]``."""
        task = self.task
        drawn = flip.shifts(task.noise.labels, self.seed, flip.LABELS, self.start, self.stop, len(task.labels))
        return np.asarray((task.labels + drawn) % task.classes, dtype=np.int64)

    @cached_property
    def gamma(self) -> Cells:
        """Noise on the test images, one vector per trial: uint8 ``[B, cells]``, added mod d."""
        return self._pixel_noise(flip.TEST, self.task.tests.shape[1])

    def tests(self, trial: int) -> Cells:
        """The noisy test images x + gamma^j (mod d) of one trial of the block: uint8 ``[m, cells]``."""
        if self.task.domain == 2:
            return np.asarray(self.task.tests ^ self.gamma[trial], dtype=np.uint8)
        noisy = (self.task.tests.astype(np.uint16) + self.gamma[trial]) % self.task.domain
        return np.asarray(noisy, dtype=np.uint8)

    @cached_property
    def class_sizes(self) -> NDArray[np.int64]:
        """Training images per noisy label: ``[B, K]``."""
        return np.stack([(self.labels == k).sum(axis=1) for k in range(self.task.classes)], axis=1)

    def class_sums(self) -> NDArray[np.int64]:
        """Sum of the noisy training pixels per noisy label, from the noisy images: ``[B, K, cells]``."""
        binary = self.task.domain == 2
        step, kind = (_SUM_ROWS, np.uint8) if binary else (len(self.task.images), np.int64)
        sums = np.zeros((len(self), self.task.classes, self.task.images.shape[1]), dtype=np.int64)
        for first in range(0, len(self.task.images), step):
            part, labels = self.pixels[:, first : first + step], self.labels[:, first : first + step]
            rest = part.sum(axis=1, dtype=kind).astype(np.int64)
            for k in range(1, self.task.classes):
                mine = np.where(labels == k, 0xFF, 0).astype(np.uint8)[:, :, None]
                of_class = (part & mine).sum(axis=1, dtype=kind).astype(np.int64)
                sums[:, k] += of_class
                rest -= of_class
            sums[:, 0] += rest
        return sums

    def drawn_class_sums(self) -> NDArray[np.integer[Any]]:
        """`class_sums` drawn from its own distribution, given the noisy labels: far fewer random numbers.

        The sums have the same joint distribution with labels and test noise, but are those of other noisy images than
        `pixels`: a learner uses the one or the other. Sets that are not binary or have more than 127 images are
        summed image by image.
        """
        task = self.task
        if task.domain != 2 or len(task.images) > MOST_CELLS:
            return self.class_sums()
        of_class = (self.labels[:, None, :] == np.arange(1, task.classes)[:, None]).astype(np.float32)
        ones = np.empty((len(self), task.classes, task.images.shape[1]), dtype=np.int32)
        ones[:, 1:] = of_class @ task.images.astype(np.float32)
        ones[:, 0] = task.images.sum(axis=0, dtype=np.int32) - ones[:, 1:].sum(axis=1)
        return sampler(task.noise.train.keep).draw(self.class_sizes, ones, self.seed, self.start, self.stop)

    def random_words(self, size: int) -> flip.Words:
        """Random words for the learner's own use (initial weights): uint64 ``[B, size]``, by (seed, j) alone."""
        return flip.words(self.seed, flip.INIT, self.start, self.stop, size)

    def user_seeds(self) -> list[int]:
        """A seed of 63 bits per trial, for learners that bring their own generator."""
        drawn = flip.words(self.seed, flip.USER, self.start, self.stop, 1)[:, 0]
        return [int(word >> np.uint64(1)) for word in drawn]

    def _pixel_noise(self, stream: int, cells: int) -> NDArray[np.uint8]:
        noise = self.task.noise.train if stream == flip.TRAIN else self.task.noise.test
        draw = flip.flips if self.task.domain == 2 else flip.shifts
        return draw(noise, self.seed, stream, self.start, self.stop, cells).astype(np.uint8, copy=False)
