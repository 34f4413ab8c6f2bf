"""Verb ``certify``: images and a learner to proved radii; how much poisoning a training procedure withstands."""

from doorward.certify import learners as learners
from doorward.certify.attack_search import AttackSearch, attack_search
from doorward.certify.certificate import Certificate, certificate_from_votes
from doorward.certify.mean_distance import MeanDistanceSettings, mean_distance
from doorward.certify.montecarlo import Learner, Votes, smooth
from doorward.certify.nearest_neighbours import NearestNeighboursSettings, nearest_neighbours
from doorward.certify.noise import FlipNoise, Noise
from doorward.certify.radius import Block, certified_region, is_certified, joint_threshold, threshold, worst_case
from doorward.certify.run import certify, noise_blocks
from doorward.certify.task import SmoothingTask, cells_of, draw_split
from doorward.certify.votes import ABSTAIN, radius_of_votes, trials_needed, votes_needed
from doorward.verbs import make_callable

make_callable(__name__, certify)

__all__ = [
    "ABSTAIN",
    "AttackSearch",
    "Block",
    "Certificate",
    "FlipNoise",
    "Learner",
    "MeanDistanceSettings",
    "NearestNeighboursSettings",
    "Noise",
    "SmoothingTask",
    "Votes",
    "attack_search",
    "cells_of",
    "certificate_from_votes",
    "certified_region",
    "certify",
    "draw_split",
    "is_certified",
    "joint_threshold",
    "learners",
    "mean_distance",
    "nearest_neighbours",
    "noise_blocks",
    "radius_of_votes",
    "smooth",
    "threshold",
    "trials_needed",
    "votes_needed",
    "worst_case",
]
