"""Verb ``cleanse``: images and a classifier trained on them to a suspicion per image."""

from doorward.cleanse.activation import ActivationSettings, activation
from doorward.cleanse.impurity import ImpuritySettings, impurity
from doorward.cleanse.observe import Observations, observe
from doorward.cleanse.run import DEFAULT_METHODS, Cleansing, Outcome, cleanse
from doorward.cleanse.scan import ScanSettings, scan
from doorward.cleanse.spectral import SpectralSettings, spectral
from doorward.cleanse.spectre import SpectreSettings, spectre
from doorward.cleanse.suspicion import Group, Suspicion
from doorward.verbs import make_callable

make_callable(__name__, cleanse)

__all__ = [
    "DEFAULT_METHODS",
    "ActivationSettings",
    "Cleansing",
    "Group",
    "ImpuritySettings",
    "Observations",
    "Outcome",
    "ScanSettings",
    "SpectralSettings",
    "SpectreSettings",
    "Suspicion",
    "activation",
    "cleanse",
    "impurity",
    "observe",
    "scan",
    "spectral",
    "spectre",
]
