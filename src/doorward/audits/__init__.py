"""The audit: every verb on one training set and one model, joined into a verdict that an experiment shows."""
