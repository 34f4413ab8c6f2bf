"""Speed and memory, each against a peer or a plain reference in the same run: ``python -m benchmarks [NAME ...]``."""
