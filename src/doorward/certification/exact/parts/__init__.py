"""What several deterministic certificates use."""
