"""Cleansing of training sets: images and a classifier trained on them to suspects."""
