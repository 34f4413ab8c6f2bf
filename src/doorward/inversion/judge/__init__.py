"""From statistics per class to p-values and evidence."""
