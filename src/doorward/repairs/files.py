"""The classifiers of a repair in a run's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from doorward.core.classifier import Classifier
from doorward.core.tensors import write_tensors
from doorward.models.files import save_classifier
from doorward.models.nets.catalogue import NETS


def arm_folder(number: int, name: str) -> str | None:
    """Where the arm of that number lies; the classifier as given, number 0, is not kept."""
    return None if number == 0 else "." if number == 1 else f"arms/{name}"


def save_arm(classifier: Classifier, folder: Path) -> None:
    """Write a classifier into a folder, made when there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    if classifier.arch in NETS:
        save_classifier(classifier, folder)
    else:  # a net of the user's own: loaded again by --arch, as it was this time
        write_tensors(folder / "weights.safetensors", classifier.net.state_dict())


def copy_arm(source: Path, folder: Path) -> None:
    """Copy the classifier of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("weights.safetensors", "classifier.json"):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
