"""Nets of files, as a user has them."""
