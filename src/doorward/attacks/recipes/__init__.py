"""One recipe, one file; a file here is registered by being here. A recipe makes a stamp for images of a given shape."""
