"""Pages, SARIF and JSON; they read results and never decide."""
