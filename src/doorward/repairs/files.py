"""The classifiers of a repair in a run's folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from doorward.core.classifier import Classifier
from doorward.core.opening import check_file, home_of
from doorward.models.files import save_classifier, save_like

_OWN = ("weights.safetensors", "classifier.json", "config.json")  # what `load_classifier` reads
_NAME = "repaired"  # of the weights in the form that they came in


def arm_folder(number: int, name: str, alone: bool = False) -> str | None:
    """Where the arm of that number lies; the classifier as given, number 0, is kept only where it stands alone."""
    if number == 0:
        return "." if alone else None
    return "." if number == 1 else f"arms/{name}"


def save_arm(classifier: Classifier, folder: Path) -> None:
    """Write a classifier into a folder, made when there is none; a net of the user's own with its file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    save_classifier(classifier, folder)


def save_as_it_came(
    classifier: Classifier, folder: Path, source: Path, arch: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Write a repaired classifier into an arm's folder once more, in the form that its model came in (`save_like`).

    Args:
        source, arch: what the model was opened from, and with.

    Returns: the name of the file, or of the folder for transformers; None where the model is a folder of Doorward,
        whose form the arm has already. And in words what is not as it was.
    """
    if (source / "classifier.json").exists():
        return None, ()
    with tempfile.TemporaryDirectory(dir=folder, suffix=f".{os.getpid()}.tmp") as place:  # swept after a kill
        written, notes = save_like(classifier, source, arch, Path(place) / "made")
        target = folder / f"{_NAME}{written.suffix if written.is_file() else ''}"
        replace_path(written, target)
    return target.name, notes


def keep_as_it_came(classifier: Classifier, folder: Path, source: Path) -> str | None:
    """Write a classifier that nothing was done to: its files are, byte for byte, those that it was opened from.

    Returns: the name of the file, or of the folder for transformers; None where the model is a folder of Doorward.
    """
    if (source / "classifier.json").exists():
        copy_arm(source, folder)
        return None
    save_arm(classifier, folder)
    target = folder / f"{_NAME}{source.suffix if source.is_file() else ''}"
    if source.is_file():
        shutil.copyfile(source, target)
        return target.name
    target.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.resolve().is_relative_to(home_of(source.resolve())):
            shutil.copyfile(path, target / path.name)
    return target.name


def replace_path(source: Path, target: Path) -> None:
    """Move a file or folder to where one of an interrupted call may lie."""
    if target.is_dir():
        shutil.rmtree(target)
    source.rename(target)


def copy_arm(source: Path, folder: Path, file: str | None = None) -> None:
    """Copy the classifier of a finished run; ``file``: its weights in the form that they came in."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*_OWN, *([file] if file else [])):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
        elif (source / name).exists():
            check_file(source / name, inside=source)
            shutil.copyfile(source / name, folder / name)
