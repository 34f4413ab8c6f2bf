"""Certification: how much poisoning a training procedure withstands."""
