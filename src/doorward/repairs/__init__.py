"""Repair: a classifier and clean images to a classifier without its backdoor."""
