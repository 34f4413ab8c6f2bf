"""Verb ``invert``: a classifier and a few clean images to triggers per class and one verdict."""

from doorward.invert.bench import Outcome, judge
from doorward.invert.complete import Complete, CompleteSettings, complete_triggers
from doorward.invert.distribution import TriggerDistribution
from doorward.invert.effort import EffortSettings, equal_effort
from doorward.invert.evidence import Evidence, likeness, rank_targets
from doorward.invert.frozen import Frozen
from doorward.invert.heatmap import HeatMap, HeatSettings, heat_maps
from doorward.invert.loop import Watch
from doorward.invert.margin import MarginSettings, margin
from doorward.invert.mask import MaskSettings, mask
from doorward.invert.measure import success
from doorward.invert.mesa import MesaSettings, mesa
from doorward.invert.pairwise import PairwiseSettings, pairwise
from doorward.invert.pixel import PixelSettings, pixel
from doorward.invert.references import train_references
from doorward.invert.repeat import Round, blindfolded, invert_repeatedly
from doorward.invert.result import Inverted
from doorward.invert.run import DEFAULT_METHODS, Inversion, invert
from doorward.invert.scene import Scene
from doorward.invert.universal import UniversalSettings, universal
from doorward.invert.verdict import OrderTest, order_test
from doorward.invert.window import WindowSettings, window
from doorward.verbs import make_callable

make_callable(__name__, invert)

__all__ = [
    "DEFAULT_METHODS",
    "Complete",
    "CompleteSettings",
    "EffortSettings",
    "Evidence",
    "Frozen",
    "HeatMap",
    "HeatSettings",
    "Inversion",
    "Inverted",
    "MarginSettings",
    "MaskSettings",
    "MesaSettings",
    "OrderTest",
    "Outcome",
    "PairwiseSettings",
    "PixelSettings",
    "Round",
    "Scene",
    "TriggerDistribution",
    "UniversalSettings",
    "Watch",
    "WindowSettings",
    "blindfolded",
    "complete_triggers",
    "equal_effort",
    "heat_maps",
    "invert",
    "invert_repeatedly",
    "judge",
    "likeness",
    "margin",
    "mask",
    "mesa",
    "order_test",
    "pairwise",
    "pixel",
    "rank_targets",
    "success",
    "train_references",
    "universal",
    "window",
]
