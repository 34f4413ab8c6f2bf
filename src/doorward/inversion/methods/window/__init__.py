"""The moving window of the HackML extension."""
