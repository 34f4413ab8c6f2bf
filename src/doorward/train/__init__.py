"""Verb ``train``: images and a net to a classifier."""

from doorward.train.files import load_classifier, save_classifier
from doorward.train.loop import Progress, train
from doorward.train.settings import TrainSettings
from doorward.verbs import make_callable

make_callable(__name__, train)

__all__ = ["Progress", "TrainSettings", "load_classifier", "save_classifier", "train"]
