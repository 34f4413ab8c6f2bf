"""Verb ``repair``: a classifier and clean images to a classifier without its backdoor."""

from doorward.repair.prune import PruneSettings, prune
from doorward.repair.repaired import Repaired, Step
from doorward.repair.run import repair
from doorward.verbs import make_callable

make_callable(__name__, repair)

__all__ = ["PruneSettings", "Repaired", "Step", "prune", "repair"]
