"""FLARE: likelihoods against the normal density by hand, clusters of planted worlds, and nets it cannot look into."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from doorward.cleansers.methods.flare import (
    FlareSettings,
    find_clusters,
    flare,
    layer_likelihoods,
    least_log_likelihood,
)
from doorward.cleansers.suspicion import Suspicion
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError


class Twice(nn.Module):
    """Two batch norms, the second used twice, and one that no image passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.idle = nn.BatchNorm2d(2, eps=0.1), nn.BatchNorm1d(2), nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)
        for norm in (self.first, self.second):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.copy_(torch.tensor([0.2, 0.6]))
            norm.running_var.copy_(torch.tensor([0.5, 2.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.first(images[:, :2]).mean(dim=(2, 3))
        return self.head(self.second(self.second(pooled)))  # type: ignore[no-any-return]


def classifier(net: nn.Module) -> Classifier:
    return Classifier(net, "own", ("a", "b", "c"), (3, 6, 6))


def log_density(x: np.ndarray, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> np.ndarray:
    """Of ``[B, C, ...]`` under the running statistics, element by element."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean.numpy().astype(float), norm.running_var.numpy().astype(float) + norm.eps
    channel = np.moveaxis(x.astype(float), 1, -1)
    return np.asarray(-0.5 * ((channel - mean) ** 2 / variance + np.log(2 * np.pi * variance)))


def test_the_likelihood_is_the_least_of_the_normal_density() -> None:
    norm, x = Twice().first, torch.rand(5, 2, 4, 3)
    expected = log_density(x.numpy(), norm).reshape(5, -1).min(axis=1)
    assert least_log_likelihood(x, norm).numpy() == pytest.approx(expected, rel=1e-5)


def test_every_layer_that_images_pass_has_a_column_whatever_the_batch() -> None:
    net, pixels = Twice().train(), np.random.default_rng(0).integers(0, 256, (300, 6, 6, 3), np.uint8)
    found = layer_likelihoods(classifier(net), pixels)
    net.eval()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        entering = images[:, :2], net.first(images[:, :2]).mean(dim=(2, 3))
        again = net.second(entering[1])
    second = np.minimum(*(log_density(x.numpy(), net.second).min(axis=1) for x in (entering[1], again)))
    first = log_density(entering[0].numpy(), net.first).reshape(300, -1).min(axis=1)
    assert found == pytest.approx(np.stack([first, second], axis=1), rel=1e-4)


def test_the_net_that_it_is_given_stays_as_it_is() -> None:
    net = Twice().train()
    layer_likelihoods(classifier(net), np.zeros((3, 6, 6, 3), np.uint8))
    assert net.training and not any(m._forward_pre_hooks for m in net.modules())


def test_a_net_without_batch_norms_is_refused() -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(108, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(DoorwardError, match="cleanse flare: own: no batch norm with running statistics"):
        flare(classifier(bare), np.zeros((4, 6, 6, 3), np.uint8), np.zeros(4, np.int64), FlareSettings())


def blobs(planted: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(1500, 6))
    values[:planted] = values[:planted] * 0.5 - 8
    return values


@pytest.mark.parametrize("planted", [20, 150, 600])
@pytest.mark.parametrize("limit", [20_000, 500])
def test_the_planted_cluster_is_not_the_largest(planted: int, limit: int) -> None:
    order = np.random.default_rng(1).permutation(1500)
    found = find_clusters(blobs(planted)[order], FlareSettings(fit_limit=limit, neighbours=5))
    poisoned = order < planted
    assert (found[poisoned] > 0).mean() > 0.95 and not (found[~poisoned] > 0).any()


def test_clusters_are_numbered_by_size() -> None:
    values = np.concatenate([blobs(150), blobs(150)[:40] + 30])
    found = find_clusters(values, FlareSettings())
    sizes = np.bincount(found[found >= 0])
    assert len(sizes) == 3 and (np.diff(sizes) < 0).all()
    assert (find_clusters(values[:6], FlareSettings()) == -1).all(), "fewer images than a cluster holds"


def looked(monkeypatch: pytest.MonkeyPatch, values: np.ndarray, **settings: float) -> Suspicion:
    """FLARE on likelihoods that are given."""
    module = sys.modules["doorward.cleansers.methods.flare"]
    monkeypatch.setattr(module, "layer_likelihoods", lambda classifier, pixels: values * [1, 10, 100, 1, 1, 1] - 50)
    pixels, labels = np.zeros((len(values), 6, 6, 3), np.uint8), np.arange(len(values)) % 3
    return flare(classifier(Twice()), pixels, labels, FlareSettings(**settings))  # type: ignore[arg-type]


def test_images_of_the_smaller_cluster_are_flagged_whatever_the_scale_of_a_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = looked(monkeypatch, blobs(150))
    assert found.flag[:150].mean() > 0.95 and not found.flag[150:].any() and not found.warnings
    assert found.score[:150].min() > found.score[150:].max()
    assert sum(g.size for g in found.groups) == 1500 and sum(g.flagged for g in found.groups) == found.flag.sum()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_flagged_when_many_images_are_outside_of_all_clusters(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    found = looked(monkeypatch, blobs(0, seed))
    assert not found.flag.any() and "outside of all clusters: nothing is flagged" in found.warnings[0]
    assert {g.label for g in found.groups} == {0, 1, 2} and np.isfinite(found.score).all()
