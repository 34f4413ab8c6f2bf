"""FLARE: likelihoods at the inputs of all batch norms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from doorward.cleansers.parts.passes import batch_norms, own_copy, passes, spread_rows
from doorward.cleansers.suspicion import Group, Suspicion, members_by_class
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


class FlareSettings(Settings):
    """Settings of FLARE."""

    smallest: float = Field(0.005, gt=0, le=0.5, description="share of the images that a cluster holds at least")
    neighbours: int = Field(10, ge=1, description="images within reach of one that lies inside a cluster (HDBSCAN)")
    outside: float = Field(
        0.1, ge=0, le=1, description="share of images outside of all clusters above which the set has no clusters"
    )
    fit_limit: int = Field(20_000, ge=100, description="images that are clustered; others go with their nearest")


@method(
    "cleanse",
    "flare",
    settings=FlareSettings,
    given={"classifier", "pixels", "labels"},
    kind="features",
)
def flare(classifier: Classifier, pixels: NDArray[np.uint8], labels: Labels, s: FlareSettings) -> Suspicion:
    """Flag the images that fall into another cluster than most, by how unlikely they are at each batch norm.

    FLARE, Hou, Luo, Hua, Chen, Zhang and Li, IEEE TIFS 2025 (arXiv 2411.19479): what enters a batch norm is compared
    with the layer's running mean and variance; an image's number for the layer is its least log-likelihood over all
    channels and positions; the numbers of all layers are clustered for all classes together; the largest cluster is
    taken as clean and the rest as poisoned. It needs no clean images and no labels.

    Deviations: the paper reduces to two dimensions by UMAP; here each layer is brought to mean 0 and standard
    deviation 1, and scikit-learn's HDBSCAN clusters all layers. The paper cuts the tree of clusters where it is most
    stable; here HDBSCAN's own choice (excess of mass) stands, unless many images lie outside of all clusters: then
    nothing is flagged (the share was chosen on digits). The paper flags all but the largest cluster; here images
    outside of all clusters are not flagged. The smallest cluster is a share of the set, 0.5 %; the paper has 100 of
    50,000 images.

    Args:
        classifier: with batch norms; it stays as it is.
        pixels: uint8 ``[N, H, W, C]``.
        labels: training labels ``[N]``, for the table alone.

    Returns: an image's score is its distance from the median of the largest cluster, in standard deviations per
        layer, root mean square; a group per class and cluster (0 the largest cluster and what is outside of all), its
        statistic the median score. The paper has no number per class, so no verdict rests on it alone.

    Raises:
        DoorwardError: a net without batch norms.

    Fails when: poison is rarer than the smallest cluster, or is most of the set; when the clean images fall into
        several clusters; when images of one trigger are no less likely at any layer than others; when a net has no
        batch norms.
    """
    likelihoods = layer_likelihoods(classifier, pixels)
    spread = likelihoods.std(axis=0)
    values = (likelihoods - likelihoods.mean(axis=0)) / np.where(spread > 0, spread, 1)
    clusters, warnings = find_clusters(values, s), []
    outside = float((clusters < 0).mean())
    if outside > s.outside:
        warnings.append(f"{outside:.0%} of the images lie outside of all clusters: nothing is flagged")
        clusters = np.zeros_like(clusters)
    flag = clusters > 0
    away = values - np.median(values[clusters == 0], axis=0)
    score = np.sqrt((away**2).mean(axis=1)).astype(np.float32)
    return Suspicion(score, flag, _groups(labels, np.maximum(clusters, 0), score), tuple(warnings))


def layer_likelihoods(classifier: Classifier, pixels: NDArray[np.uint8]) -> Matrix:
    """Least log-likelihood ``[N, layers]`` of each image over what enters each batch norm.

    Raises:
        DoorwardError: a net without batch norms.
    """
    looking = own_copy(classifier)
    layers = batch_norms(looking.net)
    if not layers:
        raise DoorwardError(f"cleanse flare: {classifier.arch}: no batch norm with running statistics; expected some")
    seen: dict[int, list[Tensor]] = {}
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(_watch(seen.setdefault(number, [])))
    rows = []
    for _ in passes(looking, pixels):
        least = [
            torch.stack(calls).amin(dim=0) for calls in seen.values() if calls
        ]  # of a layer that is used twice too
        rows.append(torch.stack(least, dim=1).cpu())
        for calls in seen.values():
            calls.clear()
    return torch.cat(rows).double().numpy()


def _watch(calls: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        calls.append(least_log_likelihood(inputs[0], layer))

    return keep


def least_log_likelihood(entering: Tensor, layer: _BatchNorm) -> Tensor:
    """min over channels and positions of log N(x; running mean, running variance) ``[B]``, of ``[B, C, ...]``."""
    assert layer.running_mean is not None and layer.running_var is not None
    shape = (1, -1, *(1,) * (entering.ndim - 2))
    mean, variance = layer.running_mean.view(shape), layer.running_var.view(shape) + layer.eps
    squares = (entering - mean) ** 2 / variance + (2 * math.pi * variance).log()
    return -0.5 * squares.flatten(1).amax(dim=1).float()


def find_clusters(values: Matrix, s: FlareSettings) -> Labels:
    """Cluster of each image ``[N]``: 0 the largest, from 1 on the others, -1 outside of all."""
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import KNeighborsClassifier

    count = len(values)
    rows = spread_rows(count, s.fit_limit)
    size = max(2, s.neighbours, round(s.smallest * len(rows)))
    if size > len(rows):
        return np.full(count, -1)
    found = HDBSCAN(min_cluster_size=size, min_samples=s.neighbours, copy=True).fit_predict(values[rows])
    sizes = np.bincount(found[found >= 0], minlength=1)
    order = np.argsort(-sizes, kind="stable")
    named = np.full(len(sizes) + 1, -1)  # the last place is that of -1
    named[order] = np.arange(len(sizes))
    clusters = named[found]
    if len(rows) < count:
        clusters = KNeighborsClassifier(1).fit(values[rows], clusters).predict(values)
    return clusters.astype(np.int64)


def _groups(labels: Labels, clusters: Labels, score: NDArray[np.float32]) -> tuple[Group, ...]:
    """A row per class and cluster that meet, and one for every class."""
    groups = []
    for label, rows in members_by_class(labels):
        for cluster in np.union1d([0], clusters[rows]).tolist():
            inside = rows[clusters[rows] == cluster]
            middle = float(np.median(score[inside])) if len(inside) else 0.0
            groups.append(Group(label, cluster, len(inside), middle, None, len(inside) if cluster else 0))
    return tuple(groups)
