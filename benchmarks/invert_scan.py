"""A whole scan, verdict included, of a backdoored ResNet-20, beside Neural Cleanse with every class run to its end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.invert_speed import BATCH, CLASSES, plain_mask
from benchmarks.table import write
from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.data.sources import load_images
from doorward.inversion.invert import Inversion, invert
from doorward.inversion.methods.mask import MaskSettings
from doorward.models.files import load_classifier, save_classifier
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings

STORE = Path("runs/invert-scan")
TARGET, TRAINED_ON, SEEN, SEED = 3, 20_000, 1000, 0
TO_THE_END = 10**6  # windows of patience: no class is done before the last step
PLAIN_SHARE = 8  # the reference takes so many times fewer steps, and its time is multiplied


def suspect(test: ImageSet) -> tuple[Classifier, str]:
    """A ResNet-20 with a 3 x 3 patch for class 3, trained once and kept, and what it does."""
    training = load_images("cifar10")
    training = training.subset(np.sort(np.random.default_rng(SEED).permutation(len(training))[:TRAINED_ON]))
    planted = attack(training, "patch", target=TARGET, rate=0.05, seed=SEED)
    if not STORE.exists():
        settings = TrainSettings(epochs=5, flip=True, shift=2)
        STORE.mkdir(parents=True)
        save_classifier(train(planted.images, "resnet20", settings, seed=SEED), STORE)
    classifier = load_classifier(STORE)
    return classifier, f"accuracy {measure_accuracy(classifier, test)} %, ASR {asr(classifier, test, planted.attack)} %"


def scan(classifier: Classifier, images: ImageSet | None, method: str, **settings: Any) -> tuple[Inversion, float]:
    """One method, its verdict, and the seconds that both took."""
    began = time.perf_counter()
    found = invert(classifier, images, [method], settings={method: settings} if settings else None, seed=SEED)
    return found, time.perf_counter() - began


def plain_seconds(classifier: Classifier, images: ImageSet, steps: int) -> float:
    """What the class-by-class optimisation of `invert_speed` takes for so many steps per class."""
    pictures, labels = to_float(images.pixels), torch.from_numpy(images.labels)
    began = time.perf_counter()
    plain_mask(classifier, pictures, labels, steps // PLAIN_SHARE)
    return (time.perf_counter() - began) * PLAIN_SHARE


def main() -> None:
    """Measure and write the table."""
    test = load_images("cifar10", split="test")
    rows = np.sort(np.random.default_rng(SEED).permutation(len(test))[:SEEN])
    seen = test.subset(rows)
    classifier, about = suspect(test.subset(np.setdiff1d(np.arange(len(test)), rows)))
    s = MaskSettings()
    reference = plain_seconds(classifier, seen, s.steps)
    table = [
        [
            "plain `mask`, class by class, fp32, to the end",
            f"{CLASSES * s.steps * BATCH:,}",
            f"{reference:,.0f}",
            "1.0",
            "–",
        ]
    ]
    forms: tuple[tuple[str, str, ImageSet | None, dict[str, Any]], ...] = (
        ("`mask`, to the end", "mask", seen, {"patience": TO_THE_END}),
        ("`mask`", "mask", seen, {}),
        ("`margin`, no images", "margin", None, {}),
        ("`universal`", "universal", seen, {}),
    )
    for name, method, images, settings in forms:
        found, seconds = scan(classifier, images, method, **settings)
        steps = found.outcomes[method].inverted.details.get("steps")
        passes = f"{sum(steps) * BATCH:,}" if steps and method == "mask" else "–"
        p_value = "–" if found.p_value is None else f"{found.p_value:.2g}"
        verdict = f"class {', '.join(map(str, found.targets)) or 'none'}, p = {p_value}"
        table.append([name, passes, f"{seconds:,.0f}", f"{reference / seconds:.1f}", verdict])
    told = (
        f"CIFAR-10, ResNet-20 trained on {TRAINED_ON:,} images with a 3 x 3 patch for class {TARGET} ({about}), "
        f"{SEEN:,} clean images, no reference nets, from the loaded classifier to the verdict, once. The "
        f"first line is the loop of `invert_speed`'s "
        f"reference with {s.steps} steps per class; it ran {s.steps // PLAIN_SHARE}, and its seconds are multiplied by "
        f"{PLAIN_SHARE}."
    )
    columns = ["scan", "image passes", "seconds", "times as fast", "named at .05"]
    write("invert_scan", "Time of a scan to its verdict", told, columns, table)


if __name__ == "__main__":
    main()
