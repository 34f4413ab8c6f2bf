"""The data room: image sets from names, folders, files and Python objects."""

from __future__ import annotations

from doorward.data.download import fetch
from doorward.data.export import export_images
from doorward.data.named import NamedSet, catalogue
from doorward.data.reading import Reading
from doorward.data.sources import load_images, load_test_images
from doorward.data.summary import describe

__all__ = [
    "NamedSet",
    "Reading",
    "catalogue",
    "describe",
    "export_images",
    "fetch",
    "load_images",
    "load_test_images",
]
