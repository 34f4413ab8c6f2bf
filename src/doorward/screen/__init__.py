"""Screening of single images at test time: is this one stamped?"""

from doorward.screen.ada import Ada, AdaSettings
from doorward.screen.inverted import Inverted, InvertedSettings
from doorward.screen.run import SCREENS, fit, load_screen, save_screen, screen
from doorward.screen.screens import Screen, Screened, roc, threshold_at
from doorward.screen.strip import Strip, StripSettings
from doorward.verbs import make_callable

make_callable(__name__, screen)

__all__ = [
    "Ada",
    "AdaSettings",
    "Inverted",
    "InvertedSettings",
    "SCREENS",
    "Screen",
    "Screened",
    "Strip",
    "StripSettings",
    "fit",
    "load_screen",
    "roc",
    "save_screen",
    "screen",
    "threshold_at",
]
