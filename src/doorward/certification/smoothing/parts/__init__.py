"""What several learners use."""
