"""Randomized smoothing of the whole train-and-predict procedure."""
