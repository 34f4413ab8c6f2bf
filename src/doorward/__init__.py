"""Doorward audits image-classification training sets and models for backdoors.

Verbs are functions: ``doorward.audit(images, model)``. Rooms are nouns: ``doorward.cleansers``. Nothing heavy is
imported before it is used; type checkers know every name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

_ROOMS = (
    "attacks", "audits", "certification", "cleansers", "core", "data", "inversion", "jobs", "models", "repairs",
    "reports", "scoring", "screens",
)  # fmt: skip
_NAMES = {
    "Certificate": "certification.certificate",
    "Classifier": "core.classifier",
    "DoorwardError": "core.errors",
    "ImageSet": "core.images",
    "Trigger": "core.triggers",
    "attack": "attacks.attack",
    "audit": "audits.audit",
    "certify": "certification.certify",
    "cleanse": "cleansers.cleanse",
    "invert": "inversion.invert",
    "load_images": "data.sources",
    "load_model": "models.open.load",
    "repair": "repairs.repair",
    "report": "reports.page",
    "score": "scoring.score",
    "screen": "screens.screen",
    "train": "models.train.loop",
    "verify": "verifier",
}

__all__ = [
    "Certificate", "Classifier", "DoorwardError", "ImageSet", "Trigger", "__version__",
    "attack", "audit", "certify", "cleanse", "invert", "load_images", "load_model", "repair", "report", "score",
    "screen", "train", "verify",
    "attacks", "audits", "certification", "cleansers", "core", "data", "inversion", "jobs", "models", "repairs",
    "reports", "scoring", "screens",
]  # fmt: skip

if TYPE_CHECKING:
    from doorward import attacks as attacks
    from doorward import audits as audits
    from doorward import certification as certification
    from doorward import cleansers as cleansers
    from doorward import core as core
    from doorward import data as data
    from doorward import inversion as inversion
    from doorward import jobs as jobs
    from doorward import models as models
    from doorward import repairs as repairs
    from doorward import reports as reports
    from doorward import scoring as scoring
    from doorward import screens as screens
    from doorward.attacks.attack import attack as attack
    from doorward.audits.audit import audit as audit
    from doorward.certification.certificate import Certificate as Certificate
    from doorward.certification.certify import certify as certify
    from doorward.cleansers.cleanse import cleanse as cleanse
    from doorward.core.classifier import Classifier as Classifier
    from doorward.core.errors import DoorwardError as DoorwardError
    from doorward.core.images import ImageSet as ImageSet
    from doorward.core.triggers import Trigger as Trigger
    from doorward.data.sources import load_images as load_images
    from doorward.inversion.invert import invert as invert
    from doorward.models.open.load import load_model as load_model
    from doorward.models.train.loop import train as train
    from doorward.repairs.repair import repair as repair
    from doorward.reports.page import report as report
    from doorward.scoring.score import score as score
    from doorward.screens.screen import screen as screen
    from doorward.verifier import verify as verify
else:  # hidden from type checkers, which would otherwise take any name for right

    def __getattr__(name: str) -> object:
        if name in _NAMES:
            return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
