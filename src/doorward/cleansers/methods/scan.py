"""SCAn: the statistical contamination analyser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.parts.robust import inverse_root, robust_z
from doorward.cleansers.suspicion import Group, Suspicion, list_classes, members_by_class
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]
_FEWEST_CLASSES = 4  # a median over fewer says little
_ROWS = 1 << 16  # at a time, so that features of a million images need no second copy
_LEAST = 1e-3  # a likelihood ratio per image below it says nothing


class ScanSettings(Settings):
    """Settings of SCAn."""

    threshold: float = Field(7.3891, gt=0, description="anomaly index from which a class is contaminated: e squared")
    iterations: int = Field(100, ge=1, description="of the untangling, at most")
    tolerance: float = Field(1e-5, gt=0, description="change of both covariances, relative, at which untangling ends")
    starts: int = Field(4, ge=1, description="random starts of the two-subgroup split")


@dataclass(frozen=True, eq=False)
class Untangled:
    """The global model r = mu_class + variation.

    Args:
        identity: covariance ``[t, t]`` of the class means.
        variation: covariance ``[t, t]`` of images about their class mean, shared by all classes.
        centre: mean feature ``[t]``.
    """

    identity: Matrix
    variation: Matrix
    centre: Matrix


@method(
    "cleanse",
    "scan",
    settings=ScanSettings,
    given={"features", "labels", "seed"},
    accepts={"clean_images"},
    kind="features",
)
def scan(
    features: Floats,
    labels: Labels,
    s: ScanSettings,
    *,
    seed: int,
    clean_images: Labels | None = None,
) -> Suspicion:
    """Flag one of two subgroups of every class that two means explain far better than one, compared with other classes.

    SCAn, Tang, Wang, Tang and Zhang, USENIX Security 2021: features are untangled by EM into an identity per class and
    a variation shared by all (Section 5.2); each class is split in two subgroups under that variation; J is the
    likelihood ratio of two means against one, per image; J* its distance from the median class in units of 1.4826 MAD;
    a class is contaminated from J* = e^2 = 7.3891 on. The paper fits the global model to clean images and takes the
    subgroup as poisoned that holds fewer of them. Without ``clean_images`` the model is fitted to the training set
    itself and the smaller subgroup is taken.

    Deviations: J* keeps its sign (a class more homogeneous than the median is not contaminated); the hard split is
    2-means from several starts, the same likelihood in the whitened space; J is divided by the size of the class, as
    in the authors' code, so that classes of different sizes compare.

    Args:
        features: penultimate features ``[N, t]``.
        labels: training labels ``[N]``.
        seed: of the splits.
        clean_images: rows of the training set that are known to be clean, ``[m]``.

    Returns: an image's score is J* of its class, signed by how much closer it is to the suspected subgroup; a group
        per subgroup (1 the suspected one), its statistic J*; tested is the logarithm of J.

    Fails when: many classes are contaminated (all-to-all attacks), since the median class is then one of them; when
        there are few classes; when clean classes have two modes; blind, when poison is half of its class or more, or so
        much of the set that it widens the variation which it is measured by.
    """
    trusted = None if clean_images is None else _trusted(clean_images, labels)
    model = untangle(features, labels, s) if trusted is None else untangle(features[trusted], labels[trusted], s)
    whitener = inverse_root(model.variation)
    score, flag = np.zeros(len(labels), np.float32), np.zeros(len(labels), bool)
    members = [(label, rows) for label, rows in members_by_class(labels) if len(rows) >= 3]
    splits = []
    for label, rows in members:
        centred = features[rows].astype(np.float64) - model.centre
        known = None if trusted is None else np.isin(rows, trusted)
        splits.append(_split_class(centred, model, whitener, s.starts, seed + label, known))
    indices = robust_z(np.array([split.ratio for split in splits])) if splits else np.zeros(0)
    groups: list[Group] = []
    for (label, rows), split, index in zip(members, splits, indices, strict=True):
        contaminated = bool(index > s.threshold)
        score[rows] = max(float(index), 0.0) * split.closeness
        flag[rows] = split.suspected & contaminated
        for number, size in enumerate((int((~split.suspected).sum()), int(split.suspected.sum()))):
            groups.append(Group(label, number, size, float(index), s.threshold, size * number * contaminated))
    tested = np.full(int(labels.max()) + 1, np.nan)
    tested[[label for label, _ in members]] = np.log(np.maximum([split.ratio for split in splits], _LEAST))
    return Suspicion(score, flag, tuple(groups), _warnings(labels, len(members)), tested)


def untangle(features: Floats, labels: Labels, s: ScanSettings) -> Untangled:
    """Fit identity and variation by EM (paper, Section 5.2; Chen et al. 2012, joint Bayesian).

    E-step: the mean of class k is S_mu (n_k S_mu + S_eps)^-1 times the sum of its centred features. M-step: S_mu and
    S_eps are the covariances of the class means, counted once per image, and of what is left.

    Works on sums per class; a pass costs the same for any number of images, and features may be a memory map.
    """
    starts = range(0, len(features), _ROWS)
    centre = sum(features[at : at + _ROWS].astype(np.float64).sum(axis=0) for at in starts) / len(features)
    present, index = np.unique(labels, return_inverse=True)
    counts = np.bincount(index).astype(np.float64)
    sums, total = np.zeros((len(present), features.shape[1])), np.zeros((features.shape[1],) * 2)
    for at in starts:
        values = features[at : at + _ROWS].astype(np.float64) - centre
        np.add.at(sums, index[at : at + _ROWS], values)
        total += values.T @ values
    means = sums / counts[:, None]
    identity, variation = _covariances(means, counts, sums, total)
    for _ in range(s.iterations):
        inverses = np.linalg.pinv(counts[:, None, None] * identity + variation, hermitian=True)
        means = np.einsum("ij,kjl,kl->ki", identity, inverses, sums)
        previous = identity, variation
        identity, variation = _covariances(means, counts, sums, total)
        moved = np.linalg.norm(identity - previous[0]) + np.linalg.norm(variation - previous[1])
        if moved <= s.tolerance * (np.linalg.norm(identity) + np.linalg.norm(variation)):
            break
    return Untangled(identity, variation, centre)


def _covariances(means: Matrix, counts: Matrix, sums: Matrix, total: Matrix) -> tuple[Matrix, Matrix]:
    """Covariance of the class means over images, and of the images about them, from sums alone."""
    count = counts.sum()
    between = (means * counts[:, None]).T @ means
    cross = sums.T @ means
    centre = counts @ means / count  # images have mean zero, so their rest has mean -centre
    identity = between / count - np.outer(centre, centre)
    variation = (total - cross - cross.T + between) / count - np.outer(centre, centre)
    return identity, variation


@dataclass(frozen=True, eq=False)
class _Split:
    """Who is suspected ``[n]``, how much closer to that subgroup ``[n]`` in [-1, 1], and J per image."""

    suspected: NDArray[np.bool_]
    closeness: Floats
    ratio: float


def _split_class(
    centred: Matrix, model: Untangled, whitener: Matrix, starts: int, seed: int, known: NDArray[np.bool_] | None
) -> _Split:
    from sklearn.cluster import KMeans

    white = centred @ whitener
    means = KMeans(2, n_init=starts, random_state=seed).fit(white)
    counted = np.bincount(means.labels_ if known is None or not known.any() else means.labels_[known], minlength=2)
    own = int(counted[1] <= counted[0])  # the smaller subgroup, or the one with fewer images known to be clean
    distances = means.transform(white)
    to_suspected, to_other = distances[:, own], distances[:, 1 - own]
    closeness = (to_other - to_suspected) / np.maximum(to_other + to_suspected, 1e-12)
    ratio = likelihood_ratio(centred, model, white, float(means.inertia_))
    return _Split(means.labels_ == own, closeness.astype(np.float32), ratio)


def likelihood_ratio(centred: Matrix, model: Untangled, white: Matrix, within: float) -> float:
    """J / n = -2 log(L(one mean) / L(two means)) / n of one class (paper, Section 5.3).

    Under one mean the class's mean is the posterior of the global model, as in the E-step.

    Args:
        centred: features less the global mean ``[n, t]``.
        white: the same, whitened by the variation.
        within: sum of squared distances of ``white`` to its two subgroup means.
    """
    count = len(centred)
    inverse = np.linalg.pinv(count * model.identity + model.variation, hermitian=True)
    mean = model.identity @ inverse @ centred.sum(axis=0)
    one = ((white - mean @ inverse_root(model.variation)) ** 2).sum()
    return float(one - within) / count


def _trusted(rows: Labels, labels: Labels) -> Labels:
    found = np.unique(np.asarray(rows))
    if found.dtype.kind not in "iu" or not len(found) or found[0] < 0 or found[-1] >= len(labels):
        told = f"clean_images {str(rows)[:40]}; expected row numbers from 0 to {len(labels) - 1}, as [0, 1, 5]"
        raise DoorwardError(f"cleanse scan: {told}")
    if (np.bincount(labels[found]) >= 2).sum() < 2:  # neither class means nor the variation about them otherwise
        told = f"clean_images: {len(found)} rows, fewer than two of any two classes"
        raise DoorwardError(f"cleanse scan: {told}; expected several images of every class")
    return found.astype(np.int64)


def _warnings(labels: Labels, inspected: int) -> tuple[str, ...]:
    told = []
    present = np.unique(labels)
    if inspected < len(present):
        tiny = [int(k) for k in present if (labels == k).sum() < 3]
        told.append(f"classes {list_classes(tiny)}: fewer than 3 images, not inspected")
    if inspected < _FEWEST_CLASSES:
        told.append(f"{inspected} classes: the anomaly index compares classes and says little about so few")
    return tuple(told)
