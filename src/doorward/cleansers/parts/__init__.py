"""What several cleansers use."""
