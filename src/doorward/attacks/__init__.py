"""Attacks: recipes, plans, poisoning."""
