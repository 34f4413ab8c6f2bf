"""What several repairs use."""
