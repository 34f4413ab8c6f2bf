"""The batched loop that all inversions share."""
