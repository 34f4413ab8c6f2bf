"""One deterministic certificate, one file; a file here is registered by being here."""
