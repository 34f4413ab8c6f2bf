"""The demo: attacks and a clean control on bundled digits."""
