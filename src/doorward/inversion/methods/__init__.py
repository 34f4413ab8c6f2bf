"""One inversion, one file or folder; a file here is registered by being here."""
