"""Deterministic certificates."""
