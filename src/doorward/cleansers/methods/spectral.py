"""Spectral signatures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.parts.robust import robust_z
from doorward.cleansers.suspicion import Group, Suspicion, list_classes, members_by_class
from doorward.core.methods import Settings, method

Floats = NDArray[np.float32]
_OUTER = 0.975  # of a class: what lies further out is a handful of outliers, which any class has
_LEAST = 0.5  # a z-score below it says nothing


class SpectralSettings(Settings):
    """Settings of spectral signatures."""

    centre: bool = Field(True, description="project centred features, as Algorithm 1; False as the authors' code does")
    multiple: float = Field(1.5, gt=0, description="images removed per expected poisoned image, with a known rate")
    cutoff: float = Field(4.0, gt=0, description="robust z-score from which an image is flagged, without a known rate")


@method(
    "cleanse",
    "spectral",
    settings=SpectralSettings,
    given={"features", "labels"},
    accepts={"poisoning_rate", "target_class"},
    kind="features",
)
def spectral(
    features: Floats,
    labels: NDArray[np.int64],
    s: SpectralSettings,
    *,
    poisoning_rate: float | None = None,
    target_class: int | None = None,
) -> Suspicion:
    """Flag the images of each class that lie far out along its top singular direction.

    Spectral signatures, Tran, Li and Madry, NeurIPS 2018, Algorithm 1: the score is the squared projection of
    the centred feature on the top right singular vector of its class. With the poisoning rate known (knowledge
    that an auditor does not have) the top ``multiple`` x rate x N images of every class — or of the target class
    alone, when that is known too — are flagged, at most all of a class. Without it an image is flagged when its
    projection is more than ``cutoff`` robust deviations (1.4826 MAD) from the median of its class; that rule is
    not the paper's (its value was chosen on seeds 0 to 2 of the demo's attacks, which no table reports).

    Args:
        features: penultimate features ``[N, t]``.
        labels: training labels ``[N]``.
        poisoning_rate: poisoned images per image of the set.
        target_class: the attacked class.

    Returns: scores are robust z-scores of the projections, so that classes compare; a group per class, its
        statistic the share of variance along the top direction (rate known) or the highest z-score (blind); tested
        (blind) is the logarithm of the z-score that 2.5 % of the class exceed.

    Fails when: the poison is not the main source of variance of its class (few poisoned images, a trigger whose
        features lie close to the class), or poison is most of the class, which turns the outliers around.
    """
    score = np.zeros(len(labels), np.float32)
    flag = np.zeros(len(labels), bool)
    groups, tiny, tested = [], [], np.full(int(labels.max()) + 1, np.nan)
    for label, rows in members_by_class(labels):
        if len(rows) < 3:
            tiny.append(label)
            continue
        projection, share = project(features[rows], s.centre)
        z = robust_z(projection)
        score[rows] = np.abs(z)
        if poisoning_rate is None:
            flag[rows] = np.abs(z) > s.cutoff
            tested[label] = np.log(max(np.quantile(np.abs(z), _OUTER), _LEAST))
            groups.append(_group(label, flag[rows], float(np.abs(z).max()), s.cutoff))
            continue
        if target_class is None or label == target_class:
            count = min(len(rows), round(s.multiple * poisoning_rate * len(labels)))
            order = np.argsort(-np.abs(projection), kind="stable")
            flag[rows[order[:count]]] = True
        groups.append(_group(label, flag[rows], share, None))
    warnings = [f"classes {list_classes(tiny)}: fewer than 3 images, not inspected"] if tiny else []
    return Suspicion(score, flag, tuple(groups), tuple(warnings), tested if poisoning_rate is None else None)


def project(features: Floats, centre: bool) -> tuple[NDArray[np.float64], float]:
    """Projection ``[n]`` on the top right singular vector of the centred features, and its share of the variance.

    ``centre=False`` projects the features as they are, the authors' published code; the vector is the same.
    """
    values = features.astype(np.float64)
    centred = values - values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred)  # t x t: cheaper than the SVD of n x t
    total = float(eigenvalues.sum())
    share = float(eigenvalues[-1]) / total if total > 0 else 0.0
    return (centred if centre else values) @ vectors[:, -1], share


def _group(label: int, flags: NDArray[np.bool_], statistic: float, threshold: float | None) -> Group:
    return Group(label, 0, len(flags), statistic, threshold, int(flags.sum()))
