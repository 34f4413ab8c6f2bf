"""One cleanser, one file; a file here is registered by being here."""
