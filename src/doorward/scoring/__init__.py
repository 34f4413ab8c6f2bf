"""Scoring against the truth; the only room that reads it."""
