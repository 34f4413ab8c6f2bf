"""Impurity under a bank of filters, against the largest cluster of the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.observe import logits_under
from doorward.cleansers.parts.clusters import divided, whitened
from doorward.cleansers.parts.excess import excess
from doorward.cleansers.parts.filters import FILTERS, KEPT, SHARES, WIDE_FROM
from doorward.cleansers.suspicion import Group, Suspicion, members_by_class
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, method
from doorward.core.text import percent

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
_BLUR, _SPREAD = 0.1, 0.3  # of the excess before its logarithm, and of that between clean classes


class FilterBankSettings(Settings):
    """Settings of the filter bank."""

    filters: tuple[str, ...] = Field(
        ("mean2", "median3", "gamma", "quantise4"),
        description=f"names, of {', '.join(FILTERS)}; on pictures from 48 pixels on wider means are added",
    )
    threshold: float = Field(
        0.5, gt=0, lt=1, description="by so much more than of its class's largest cluster a share has to change"
    )


@method(
    "cleanse",
    "filter-bank",
    settings=FilterBankSettings,
    given={"classifier", "pixels", "features", "logits", "labels", "seed"},
    kind="decisions under a filter",
)
def filter_bank(
    classifier: Classifier,
    pixels: NDArray[np.uint8],
    features: Floats,
    logits: Floats,
    labels: Labels,
    s: FilterBankSettings,
    *,
    seed: int,
) -> Suspicion:
    """Flag the images of feature clusters that change their decision under one of several filters.

    Cluster impurity (Xiang, Miller and Kesidis, MLSP 2019) asks one filter, a blur, which undoes small triggers. A
    faint picture over the whole image survives a blur, and not a change of the grey values: raised to a power (gamma),
    or rounded to four. Ours: several filters; of those alone that leave 80 % of all decisions; a cluster is held
    against the largest of its class, under the filter that tells them apart best, so that no filter needs a dose of its
    own. Clusters are those of two divisions of the features (`doorward.cleansers.parts.clusters`).

    Args:
        classifier: trained on the set. ``pixels``: uint8 ``[N, H, W, C]``.
        features: penultimate features ``[N, t]``. ``logits``: ``[N, K]``. ``labels``: ``[N]``.
        seed: of the mixtures.

    Returns: an image's score is the excess of its cluster (by how much more it changes than the largest of its class
        for certain, in 0..1); flagged are the images that change, of clusters with an excess above ``s.threshold``; a
        group per cluster; tested is the logarithm of a class's largest excess.

    Raises:
        DoorwardError: a filter of no known name.

    Fails when: every filter leaves the trigger's effect alone (warps), or changes too many decisions on clean images;
        poison shares its clusters with clean images, or is most of its class.
    """
    names = _names(s, min(pixels.shape[1:3]))
    before = logits.argmax(axis=1)
    images = ImageSet(pixels, labels, classifier.classes)
    after = {name: logits_under(images, classifier, name, seed=seed).argmax(axis=1) for name in names}
    gentle = {name: decided for name, decided in after.items() if (decided == before).mean() >= KEPT}
    score, flag = np.zeros(len(labels), np.float32), np.zeros(len(labels), bool)
    groups, tested = list[Group](), np.full(logits.shape[1], np.nan)
    ways = (whitened(features, labels, seed), divided(features, labels, logits.shape[1], seed))
    for label, rows in members_by_class(labels):
        for number, inside, core in _clusters(ways, rows):
            more = {n: excess(before[inside], d[inside], before[core], d[core], label) for n, d in gentle.items()}
            best = max(more, key=lambda name: more[name], default="")
            value = more.get(best, 0.0)
            new = np.zeros(len(inside), bool)  # of images in two clusters the first one counts
            if value > s.threshold:
                new = (before[inside] == label) & (gentle[best][inside] != label) & ~flag[inside]
            flag[inside] |= new
            score[inside] = np.maximum(score[inside], value)
            tested[label] = np.fmax(tested[label], value)
            groups.append(Group(label, number, len(inside), value, s.threshold, int(new.sum())))
    told = [
        f"{name} changes more than {percent(1 - KEPT, 0)} of all decisions; it is left out"
        for name in after.keys() - gentle
    ]
    return Suspicion(score, flag, tuple(groups), tuple(sorted(told)), np.log(tested + _BLUR), spread=_SPREAD)


def _clusters(ways: Sequence[Labels], rows: Labels) -> Iterator[tuple[int, Labels, Labels]]:
    """Number, images, and those of the largest one beside it, of every cluster that a class has in any division."""
    number = 0
    for clusters in ways:
        own = clusters[rows]
        core = rows[own == np.bincount(own).argmax()]
        for cluster in np.unique(own).tolist():
            yield number, rows[own == cluster], core
            number += 1


def _names(s: FilterBankSettings, side: int) -> tuple[str, ...]:
    """The filters to look through."""
    for name in s.filters:
        if name not in FILTERS:
            raise DoorwardError(f"cleanse filter-bank: filter {name!r}; expected some of {', '.join(FILTERS)}")
    wide = tuple(f"mean-{part}th" for part in SHARES) if side >= WIDE_FROM else ()
    return tuple(dict.fromkeys((*s.filters, *wide)))
