"""What ``python -m benchmarks fuzz`` consists of: small whole files, ways to damage them, and a guarded child."""
