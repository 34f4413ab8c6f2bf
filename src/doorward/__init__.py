"""Doorward audits image-classification training sets and models for backdoors.

The verbs are subpackages that can also be called: ``doorward.cleanse(...)`` runs the verb, and
``doorward.cleanse.impurity`` is one of its methods. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SUBMODULES = {
    "attack", "certify", "classifiers", "cleanse", "data", "engine", "images", "invert", "methods", "nets",
    "repair", "report", "runs", "score", "screen", "train", "triggers",
}  # fmt: skip
_NAMES = {
    "Classifier": "classifiers",
    "DoorwardError": "errors",
    "ImageSet": "images",
    "Run": "runs",
    "Trigger": "triggers",
    "load_images": "data",
}

__all__ = ["__version__", *sorted(_SUBMODULES | set(_NAMES))]

if TYPE_CHECKING:
    from doorward.classifiers import Classifier as Classifier
    from doorward.data import load_images as load_images
    from doorward.errors import DoorwardError as DoorwardError
    from doorward.images import ImageSet as ImageSet
    from doorward.runs import Run as Run
    from doorward.triggers import Trigger as Trigger


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
