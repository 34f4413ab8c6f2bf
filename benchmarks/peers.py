"""Detectors that others publish, on the features of one net: what they flag by their own defaults.

IBM's Adversarial Robustness Toolbox (spectral signatures, activation clustering), aegis-scan-ai 0.1.0 (both, and where
they agree), and three methods of papers as Doorward has them (`flare`, `psbd`, `ibd-psc`). The first is an extra
(``art``); the second asks for torchvision, which its detectors do not use: ``pip install --no-deps
aegis-scan-ai==0.1.0``. What is not installed is left out.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.art_adapter import FeatureClassifier
from doorward.cleansers.cleanse import cleanse
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet

PAPERS = ("flare", "psbd", "ibd-psc")
ART = ("ART spectral", "ART activation")
AEGIS = "aegis agreement"
NAMES = (*ART, AEGIS, *PAPERS)
TOLD = 200  # clean images that `psbd` is told
ALLOWED = 0.001  # false positives at which scores are compared


class Peer(NamedTuple):
    """Flags ``[N]`` by a detector's defaults, and its scores ``[N]``, higher for worse, where it gives any."""

    flags: NDArray[np.bool_]
    scores: NDArray[np.float64] | None


def peers(
    images: ImageSet, model: Classifier, features: NDArray[np.float32], bad: NDArray[np.bool_], seed: int
) -> dict[str, Peer]:
    """What every detector that is installed says of a set.

    Args:
        features: ``[N, t]``, the model's.
        bad: ``[N]``, the poisoned ones: `psbd` alone is told some that are not.
    """
    found = dict[str, Peer]()
    if find_spec("art") is not None:
        found |= _art(features, images.labels, len(images.classes))
    if find_spec("aegis_scan") is not None:
        found[AEGIS] = _aegis(features, images.labels)
    told = np.random.default_rng(seed).permutation(np.flatnonzero(~bad))[:TOLD].tolist()
    samples = cleanse(images, model, PAPERS, knowledge={"clean_images": told}, seed=seed).samples
    for name in PAPERS:
        found[name] = Peer(samples.flags[name], np.asarray(samples.scores[name], np.float64))
    return found


def at_rate(peer: Peer, bad: NDArray[np.bool_]) -> float:
    """Share of the poisoned images whose score is above that of all but `ALLOWED` of the clean ones; NaN without."""
    if peer.scores is None or not bad.any():
        return float("nan")
    bound = np.quantile(peer.scores[~bad], 1 - ALLOWED)
    return float((peer.scores[bad] > bound).mean())


def _art(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> dict[str, Peer]:
    """Both defences with their defaults; the spectral one removes a fixed share of every class."""
    from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense

    made = dict[str, Peer]()
    for name, kind in zip(ART, (SpectralSignatureDefense, ActivationDefence), strict=True):
        _, clean = kind(FeatureClassifier(classes), features, np.eye(classes)[labels]).detect_poison()
        made[name] = Peer(np.asarray(clean) == 0, None)
    return made


def _aegis(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Peer:
    """Images that both of its detectors flag, and its fused score."""
    from aegis_scan.detect.clustering import activation_clustering_flags
    from aegis_scan.detect.spectral import spectral_signature_scores
    from aegis_scan.fuse import fuse_scores

    fused = fuse_scores(
        spectral_signature_scores(features, labels), activation_clustering_flags(features, labels), labels
    )
    return Peer(fused.agreement, fused.fused_scores)
