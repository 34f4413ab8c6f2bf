"""SPECTRE: spectral signatures after whitening by a robust covariance, scored by quantum entropy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.parts.components import principal_components
from doorward.cleansers.parts.robust import filter_outliers, inverse_root
from doorward.cleansers.suspicion import Group, Suspicion, list_classes, members_by_class
from doorward.core.methods import Settings, method

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
_FEWEST = 10  # images that a class needs


class SpectreSettings(Settings):
    """Settings of SPECTRE."""

    alpha: float = Field(4.0, ge=0, description="weight of the matrix exponential: 0 is the norm, large the top vector")
    dimensions: int = Field(100, ge=1, description="principal components at most")
    choices: int = Field(10, ge=1, description="numbers of principal components tried, 1 to the most, squares apart")
    rounds: int = Field(10, ge=1, description="rounds of the covariance filter")
    multiple: float = Field(1.5, gt=0, description="images removed per expected poisoned image")
    ridge: float = Field(0.01, ge=0, description="added to the covariance, in units of the average variance")


@dataclass(frozen=True, eq=False)
class _Scored:
    """One class: QUE scores ``[n]``, their mean on the k that was chosen, and k."""

    scores: Matrix
    mean: float
    chosen: int


@method(
    "cleanse",
    "spectre",
    settings=SpectreSettings,
    given={"features", "labels", "seed", "poisoning_rate"},
    accepts={"target_class"},
)
def spectre(
    features: Floats,
    labels: NDArray[np.int64],
    s: SpectreSettings,
    *,
    seed: int,
    poisoning_rate: float,
    target_class: int | None = None,
) -> Suspicion:
    """Flag the images of a class that stand out once it is whitened by a covariance which poison does not decide.

    SPECTRE, Hayase, Kong, Somani and Oh, ICML 2021, Algorithm 1 and its search for k and for the target: per class,
    principal components, a robust mean and covariance (`parts.robust`), whitening, and the quantum entropy (QUE) score
    of Dong, Hopkins and Li 2019 with the matrix exponential. k is the one whose removed images give the largest mean
    QUE score when the class is whitened by the rest. The top ``multiple`` x rate x N images are flagged in the target
    class, when that is known, or else in the class of the largest mean score.

    Deviation: a ridge on the covariance. The features of a ReLU net have directions in which a few images alone are
    active; without a ridge their removal makes the mean score of any class as large as one likes. There is no blind
    form: scores have tails so long that every cutoff that finds poison flagged several percent of clean digits.

    Args:
        features: penultimate features ``[N, t]``.
        labels: training labels ``[N]``.
        seed: of the eigenvector searches.
        poisoning_rate: poisoned images per image of the set, or an upper bound of it.
        target_class: the attacked class.

    Returns: an image's score is the root of its QUE score over that of the median image of its class; a group per
        class, its statistic the mean QUE score, 1 for a class of one normal cloud.

    Fails when: poison is no outlier of its class in any direction (adaptive attacks), when it is most of its class,
        or when several classes are targets.
    """
    score = np.zeros(len(labels), np.float32)
    flag = np.zeros(len(labels), bool)
    found: dict[int, _Scored] = {}
    members = dict(members_by_class(labels))
    for label, rows in members.items():
        if len(rows) >= _FEWEST:
            found[label] = _score_class(features[rows].astype(np.float64), poisoning_rate * len(labels), s, seed)
            root = np.sqrt(found[label].scores)
            score[rows] = root / max(float(np.median(root)), 1e-12)
    suspect = target_class
    if suspect is None and found:
        suspect = max(found, key=lambda label: found[label].mean)
    if suspect in found:
        rows = members[suspect]
        count = min(len(rows), round(s.multiple * poisoning_rate * len(labels)))
        flag[rows[np.argsort(-found[suspect].scores, kind="stable")[:count]]] = True
    groups = tuple(
        Group(label, 0, len(members[label]), scored.mean, None, int(flag[members[label]].sum()))
        for label, scored in found.items()
    )
    tiny = sorted(set(members) - set(found))
    warnings = (f"classes {list_classes(tiny)}: fewer than {_FEWEST} images, not inspected",) if tiny else ()
    return Suspicion(score, flag, groups, warnings)


def _score_class(values: Matrix, expected: float, s: SpectreSettings, seed: int) -> _Scored:
    """QUE scores on the number of components whose outliers stand out most (the paper's search for k)."""
    whole = principal_components(values, min(s.dimensions, values.shape[1]))
    bound = min(max(expected, 1.0), 0.45 * len(whole))  # a majority cannot be filtered
    removed = min(round(s.multiple * bound), len(whole) // 2)
    best: _Scored | None = None
    for k in component_counts(whole.shape[1], s.choices):
        scores = _scores_in(whole[:, :k], bound, s, seed)
        kept = np.argsort(-scores, kind="stable")[removed:]
        white = _whiten(whole, kept, s.ridge)
        mean = float(que_scores(white, s.alpha).mean())
        if best is None or mean > best.mean:
            best = _Scored(scores, mean, k)
    assert best is not None
    return best


def component_counts(most: int, choices: int) -> list[int]:
    """Numbers of components to try: squares of evenly spaced roots from 1 to ``most``, as in the authors' code."""
    return sorted({round(root**2) for root in np.linspace(1, np.sqrt(most), choices)})


def _scores_in(values: Matrix, bound: float, s: SpectreSettings, seed: int) -> Matrix:
    """QUE scores ``[n]`` after robust whitening of ``[n, k]``."""
    most = min(round(2 * bound), len(values) // 2)
    keep = filter_outliers(values, bound / len(values), most=most, rounds=s.rounds, seed=seed)
    return que_scores(_whiten(values, np.flatnonzero(keep), s.ridge), s.alpha)


def _whiten(values: Matrix, kept: NDArray[np.int64], ridge: float) -> Matrix:
    """Centred and whitened by mean and covariance of the rows ``kept``, with a ridge."""
    centred = values - values[kept].mean(axis=0)
    covariance = centred[kept].T @ centred[kept] / len(kept)
    covariance += ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return centred @ inverse_root(covariance)  # type: ignore[no-any-return]


def que_scores(white: Matrix, alpha: float) -> Matrix:
    """tau_i = h_i' Q h_i / tr Q with Q = exp(alpha (S - I) / (|S| - 1)), S the covariance of ``white`` (paper, eq. 3).

    The exponential is the matrix's, from the eigenvectors of S, not that of its entries. Where S has no excess over
    the identity, Q is the identity.

    Args:
        white: ``[n, k]``, whitened.
    """
    eigenvalues, vectors = np.linalg.eigh(white.T @ white / len(white))
    excess = float(eigenvalues[-1]) - 1
    exponent = alpha * (eigenvalues - 1) / excess if excess > 1e-9 else np.zeros_like(eigenvalues)
    weights = np.exp(exponent - exponent.max())
    return ((white @ vectors) ** 2 @ weights) / weights.sum()  # type: ignore[no-any-return]
