"""Verb ``repair``: a classifier and clean images to a classifier without its backdoor."""

from doorward.repair.prune import PruneSettings, prune
from doorward.repair.retrain import AUTHORS, RetrainSettings, UnlearnSettings, retrain, unlearn
from doorward.repair.ibau import IbauSettings, ibau  # isort: skip
from doorward.repair.controls import FineTuneSettings, RefreshSettings, fine_tune, refresh
from doorward.repair.repaired import Repaired, Step
from doorward.repair.run import repair
from doorward.verbs import make_callable

make_callable(__name__, repair)

__all__ = [
    "AUTHORS",
    "FineTuneSettings",
    "IbauSettings",
    "PruneSettings",
    "RefreshSettings",
    "Repaired",
    "RetrainSettings",
    "Step",
    "UnlearnSettings",
    "fine_tune",
    "ibau",
    "prune",
    "refresh",
    "repair",
    "retrain",
    "unlearn",
]
