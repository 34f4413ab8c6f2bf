"""Many tasks, processes side by side, and resumable stages."""
