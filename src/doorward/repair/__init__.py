"""Verb ``repair``: a classifier and clean images to a classifier without its backdoor."""

from doorward.repair.arms import Arm, Planned, repair_with_controls
from doorward.repair.controls import FineTuneSettings, RefreshSettings, fine_tune, refresh
from doorward.repair.doubts import doubts
from doorward.repair.ibau import IbauSettings, ibau
from doorward.repair.inverted import InvertedTriggers, load_inverted
from doorward.repair.prune import PruneSettings, prune
from doorward.repair.repaired import Repaired, Step
from doorward.repair.retrain import AUTHORS, RetrainSettings, UnlearnSettings, retrain, unlearn
from doorward.repair.run import repair
from doorward.repair.scoring import score_arms, score_repair
from doorward.verbs import make_callable

make_callable(__name__, repair)

__all__ = [
    "AUTHORS",
    "Arm",
    "FineTuneSettings",
    "IbauSettings",
    "InvertedTriggers",
    "Planned",
    "PruneSettings",
    "RefreshSettings",
    "Repaired",
    "RetrainSettings",
    "Step",
    "UnlearnSettings",
    "doubts",
    "fine_tune",
    "ibau",
    "load_inverted",
    "prune",
    "refresh",
    "repair",
    "repair_with_controls",
    "retrain",
    "score_arms",
    "score_repair",
    "unlearn",
]
