"""An inversion on disk: triggers, a table of the classes, stamped images, and the summary for ``run.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.classifier import measure_accuracy, to_float, to_uint8
from doorward.core.files import write_array
from doorward.core.images import ImageSet
from doorward.core.stats import Rate
from doorward.core.tables import write_parquet
from doorward.core.triggers import Stamp, Trigger
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.invert import Inversion
from doorward.inversion.repeat import Round
from doorward.inversion.search.runner import Outcome

SAVED_CLASSES = 32  # per method, the most suspicious
_SHOWN_CLASSES, _SHOWN_IMAGES = 8, 6


def save_inversion(inversion: Inversion, images: ImageSet | None, folder: Path, seed: int) -> dict[str, Any]:
    """Write ``triggers/``, ``classes.parquet`` and ``thumbnails.npy``; returns the results for ``run.json``."""
    (folder / "triggers").mkdir(exist_ok=True)
    saved = {name: _save_triggers(name, o, folder / "triggers") for name, o in inversion.outcomes.items()}
    write_parquet(folder / "classes.parquet", _columns(inversion))
    thumbnails = None
    if images is not None:
        thumbnails, pixels = _thumbnails(inversion, images, seed)
        write_array(folder / "thumbnails.npy", pixels)
    names = inversion.classifier.classes
    return {
        "verdict": inversion.decision,
        "p_value": inversion.p_value,
        "level": inversion.level,
        "targets": [_target(inversion, label) for label in inversion.targets],
        "classes": [
            {"class": names[k], "label": k, "p_value": _plain(inversion.classes[k])} for k in range(len(names))
        ],
        "images": None if images is None else _about_images(images),
        "classifier": _about_classifier(inversion, images),
        "methods": {name: _method(inversion, o, saved[name]) for name, o in inversion.outcomes.items()},
        "thumbnails": thumbnails,
    }


def save_rounds(rounds: Sequence[Round], images: ImageSet, folder: Path, seed: int) -> dict[str, Any]:
    """Write the first round as `save_inversion` does and the later ones in ``round-2/`` and so on.

    Returns the first round's results, with the targets of all rounds and an entry ``rounds``.
    """
    results = save_inversion(rounds[0].inversion, images, folder, seed)
    told = [_about_round(rounds[0], results)]
    for number, later in enumerate(rounds[1:], 2):
        place = folder / f"round-{number}"
        place.mkdir(exist_ok=True)
        found = save_inversion(later.inversion, images, place, seed)
        told.append(_about_round(later, found) | {"folder": place.name, "methods": found["methods"]})
        known = {t["label"] for t in results["targets"]}
        results["targets"] += [t for t in found["targets"] if t["label"] not in known]
    return results | {"rounds": told}


def _about_round(looked: Round, results: dict[str, Any]) -> dict[str, Any]:
    return {
        "verdict": results["verdict"],
        "p_value": results["p_value"],
        "targets": results["targets"][:],
        "hidden_pixels": int(looked.hidden.sum()),
        "excluded": list(looked.excluded),
    }


def load_stamps(run: Path | str, method: str, label: int) -> list[Stamp]:
    """The triggers that a run keeps for one class: its distribution alone where there is one."""
    folder = Path(run) / "triggers"
    whole = folder / f"{method}_{label}_distribution.safetensors"
    if whole.exists():
        return [TriggerDistribution.load(whole)]
    paths = sorted(folder.glob(f"{method}_{label}_*.safetensors"), key=lambda p: int(p.stem.rsplit("_", 1)[1]))
    return [Trigger.load(path) for path in paths]


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _interval(rate: Rate | None) -> list[float | None] | None:
    """Low, value, high."""
    return None if rate is None or not rate.trials else [rate.interval[0], rate.value, rate.interval[1]]


def _target(inversion: Inversion, label: int) -> dict[str, Any]:
    """One target, with the trigger of the method that is surest of it and has one."""
    tested = [(o.test.classes[label], name) for name, o in inversion.outcomes.items() if o.test is not None]
    ranked = [inversion.outcomes[name] for _, name in sorted(tested)]
    shown = next((o for o in ranked if o.inverted.triggers), ranked[0])
    size = shown.inverted.size
    return {
        "class": inversion.classifier.classes[label],
        "label": label,
        "p_value": _plain(inversion.classes[label]),
        "asr": _interval(shown.success.get(label)),
        "size": None if size is None else _plain(size[label]),
        "method": shown.method.name,
    }


def _method(inversion: Inversion, outcome: Outcome, saved: dict[str, list[str]]) -> dict[str, Any]:
    inverted, test = outcome.inverted, outcome.test
    size = inverted.size
    return {
        "p_value": None if test is None else test.p_value,
        "undecided": outcome.undecided,
        "meaning": inverted.meaning,
        "given": sorted(outcome.method.given),
        "knowledge": list(outcome.knowledge),
        "settings": outcome.settings.model_dump(mode="json"),
        "seconds": round(outcome.seconds, 3),
        "warnings": list(inverted.warnings),
        "details": _finite(inverted.details),
        "triggers": saved,
        "classes": [
            {
                "label": k,
                "statistic": _plain(inverted.statistic[k]),
                "p_value": None if test is None else _plain(test.classes[k]),
                "reference": None if outcome.reference is None else _plain(outcome.reference[k]),
                "size": None if size is None else _plain(size[k]),
                "asr": _interval(outcome.success.get(k)),
                "converged": bool(inverted.converged[k]),
                "works": bool(inverted.works[k]),
                "ran_out": bool(inverted.ran_out[k]),
            }
            for k in range(len(inversion.classifier.classes))
        ],
    }


def _finite(value: Any) -> Any:
    """The same with numbers that JSON does not have as None."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return _plain(value) if isinstance(value, float) else value


def _save_triggers(name: str, outcome: Outcome, folder: Path) -> dict[str, list[str]]:
    """Triggers of the most suspicious classes; returns the files per class."""
    saved: dict[str, list[str]] = {}
    for label in outcome.inverted.ranked()[:SAVED_CLASSES]:
        files = []
        for number, trigger in enumerate(outcome.inverted.triggers[label]):
            files.append(f"{name}_{label}_{number}.safetensors")
            trigger.save(folder / files[-1])
        if label in outcome.inverted.distributions:
            files.append(f"{name}_{label}_distribution.safetensors")
            outcome.inverted.distributions[label].save(folder / files[-1])
        saved[str(label)] = files
    return saved


def _columns(inversion: Inversion) -> dict[str, NDArray[Any]]:
    count = len(inversion.classifier.classes)
    columns: dict[str, NDArray[Any]] = {"label": np.arange(count), "p_value": inversion.classes}
    for name, outcome in inversion.outcomes.items():
        inverted, missing = outcome.inverted, np.full(count, np.nan)
        rates = [outcome.success.get(k) for k in range(count)]
        columns[f"{name}_statistic"] = inverted.statistic
        columns[f"{name}_p_value"] = missing if outcome.test is None else outcome.test.classes
        columns[f"{name}_size"] = missing if inverted.size is None else inverted.size
        columns[f"{name}_asr"] = np.array([np.nan if r is None else r.value for r in rates])
        columns[f"{name}_converged"] = inverted.converged
    return columns


def _about_images(images: ImageSet) -> dict[str, Any]:
    return {
        "name": images.name,
        "sha256": images.hash,
        "classes": list(images.classes),
        "counts": images.counts().tolist(),
        "shape": list(images.shape),
    }


def _about_classifier(inversion: Inversion, images: ImageSet | None) -> dict[str, Any]:
    classifier = inversion.classifier
    comparable = images is not None and len(images.classes) == len(classifier.classes)
    accuracy = measure_accuracy(classifier, images).json() if images is not None and comparable else None
    return {
        "arch": classifier.arch,
        "classes": len(classifier.classes),
        "shape": list(classifier.shape),
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "accuracy_on_images": accuracy,
    }


def _thumbnails(inversion: Inversion, images: ImageSet, seed: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """A few clean images, and the same ones under the triggers of the most suspicious classes."""
    rows = np.random.default_rng(seed).permutation(len(images))[:_SHOWN_IMAGES]
    clean = np.asarray(images.pixels[np.sort(rows)])
    pictures = [clean]
    stamped: dict[str, dict[str, list[int]]] = {}
    for name, outcome in inversion.outcomes.items():
        stamped[name] = {}
        for label in outcome.inverted.ranked()[:_SHOWN_CLASSES]:
            stamp: Stamp = outcome.inverted.distributions.get(label, outcome.inverted.triggers[label][0])
            first = sum(map(len, pictures))
            pictures.append(to_uint8(stamp.apply(to_float(clean), torch.Generator().manual_seed(seed))))
            stamped[name][str(label)] = list(range(first, first + len(clean)))
    return {"clean": list(range(len(clean))), "stamped": stamped}, np.concatenate(pictures)
