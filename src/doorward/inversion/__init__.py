"""Trigger inversion: a classifier and clean images to triggers per class and a verdict."""
