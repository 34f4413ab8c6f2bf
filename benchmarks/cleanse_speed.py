"""Three cleansers on 50,000 x 64 features, beside scikit-learn and NumPy called plainly, and IBM ART if installed."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import spread, write
from doorward.cleansers.methods.activation import ActivationSettings, activation
from doorward.cleansers.methods.impurity import ImpuritySettings, impurity
from doorward.cleansers.methods.spectral import SpectralSettings, spectral
from doorward.cleansers.parts.threads import one_thread

COUNT, DIMENSIONS, CLASSES, ROUNDS = 50_000, 64, 10, 3
Floats = NDArray[np.float32]


def make_features() -> tuple[Floats, NDArray[np.int64], NDArray[np.uint8], Floats, Floats, NDArray[np.bool_]]:
    """Features as a ReLU net has them: correlated, half-normal; 900 poisoned images in class 0 lie apart."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), COUNT // CLASSES)
    poisoned = np.zeros(COUNT, bool)
    poisoned[:900] = True
    mixing = rng.normal(size=(DIMENSIONS, DIMENSIONS)) / 8
    features = np.abs(rng.normal(size=(COUNT, DIMENSIONS)) @ mixing + rng.normal(size=(CLASSES, DIMENSIONS))[labels])
    features[poisoned] = features[poisoned] @ np.abs(mixing) + 1
    pixels = rng.integers(0, 255, (COUNT, 32, 32, 3), dtype=np.uint8)
    logits = np.eye(CLASSES, dtype=np.float32)[labels]
    filtered = logits.copy()
    filtered[poisoned] = np.eye(CLASSES, dtype=np.float32)[1]
    return features.astype(np.float32), labels, pixels, logits, filtered, poisoned


def plain_spectral(features: Floats, labels: NDArray[np.int64]) -> None:
    """The paper's algorithm as it is usually written: a full SVD per class."""
    for label in range(CLASSES):
        centred = features[labels == label].astype(np.float64)
        centred -= centred.mean(axis=0)
        _, _, vectors = np.linalg.svd(centred, full_matrices=False)
        np.square(centred @ vectors[0]).argsort()


def plain_activation(features: Floats, labels: NDArray[np.int64]) -> None:
    """Activation clustering with scikit-learn's defaults."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import FastICA
    from sklearn.metrics import silhouette_score

    for label in range(CLASSES):
        reduced = FastICA(10, random_state=0).fit_transform(features[labels == label])
        found = KMeans(2, n_init=10, random_state=0).fit_predict(reduced)
        silhouette_score(reduced, found)


def plain_impurity(features: Floats, labels: NDArray[np.int64]) -> None:
    """Mixtures by scikit-learn with its own BIC, the same search over the number of clusters."""
    from sklearn.mixture import GaussianMixture

    for label in range(CLASSES):
        values = features[labels == label].astype(np.float64)
        costs: list[float] = []
        for clusters in range(1, 11):
            model = GaussianMixture(clusters, random_state=0).fit(values)
            costs.append(model.bic(values))
            if len(costs) > 2 and costs[-1] > min(costs) and costs[-2] > min(costs):
                break


def art_methods() -> dict[str, Callable[[Floats, NDArray[np.int64]], None]]:
    """IBM ART's two methods on given features; empty when ART is not installed."""
    try:
        from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense
    except ImportError:
        return {}

    from benchmarks.art_adapter import FeatureClassifier

    def run(kind: type) -> Callable[[Floats, NDArray[np.int64]], None]:
        def call(features: Floats, labels: NDArray[np.int64]) -> None:
            kind(FeatureClassifier(CLASSES), features, np.eye(CLASSES)[labels]).detect_poison()

        return call

    return {"spectral, IBM ART": run(SpectralSignatureDefense), "activation, IBM ART": run(ActivationDefence)}


def as_the_verb(method: Callable[..., object], *arguments: object, **more: object) -> object:
    """Call a method as `doorward.cleansers` does: on one thread."""
    with one_thread():
        return method(*arguments, **more)


def peak_memory(loop: Callable[[], object]) -> float:
    """Most memory in MiB that Python and NumPy held at a time during a call, above what they held before it."""
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Time everything in turn, several rounds, and write the table."""
    features, labels, pixels, logits, filtered, poisoned = make_features()
    decided = (features, logits, filtered, labels)
    loops: dict[str, Callable[[], object]] = {
        "spectral, doorward": lambda: as_the_verb(spectral, features, labels, SpectralSettings()),
        "spectral, plain": lambda: plain_spectral(features, labels),
        "activation, doorward": lambda: as_the_verb(activation, features, pixels, labels, ActivationSettings(), seed=0),
        "activation, plain": lambda: plain_activation(features, labels),
        "impurity, doorward": lambda: as_the_verb(impurity, *decided, ImpuritySettings(dimensions=0), seed=0),
        "impurity, doorward, 16 components": lambda: as_the_verb(impurity, *decided, ImpuritySettings(), seed=0),
        "impurity, plain": lambda: plain_impurity(features, labels),
    }
    loops |= {name: lambda call=call: call(features, labels) for name, call in art_methods().items()}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(ROUNDS):
            for name, loop in loops.items():
                started = time.perf_counter()
                loop()
                seconds[name].append(time.perf_counter() - started)
    rows = []
    for name, values in seconds.items():
        ours = seconds[f"{name.split(',')[0]}, doorward"]
        ratios = spread([v / o for v, o in zip(values, ours, strict=True)], 2)
        rows.append([name, spread(values, 2), ratios, f"{peak_memory(loops[name]):,.0f}"])
    told = (
        f"{COUNT:,} x {DIMENSIONS} made-up features of {CLASSES} classes, 900 poisoned; {ROUNDS} rounds in turn; "
        "median (minimum to maximum) in seconds, and how many times as long as Doorward's method (impurity: in all "
        "features, as its reference). Peak memory is what "
        "the method allocates on top of the features, counted by tracemalloc in a run of its own."
    )
    write("cleanse_speed", "Speed of the cleansers", told, ["method", "seconds", "against doorward", "peak MiB"], rows)
    for settings in (ImpuritySettings(dimensions=0), ImpuritySettings()):
        flagged = impurity(*decided, settings, seed=0).flag
        assert (flagged == poisoned).all(), "a benchmark of a wrong answer is worth nothing"


if __name__ == "__main__":
    main()
