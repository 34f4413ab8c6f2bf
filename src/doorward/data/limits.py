"""How large the parts of a set from elsewhere may be; looked at before memory is taken for them.

Nobody's real set comes near. What a small file could make of itself within them fits the memory of a small machine.
"""

from __future__ import annotations

from doorward.core.tables import MAX_CELL, MAX_ROWS

MAX_IMAGES = MAX_ROWS
MAX_CLASSES = 65_536
MAX_NAME = 100  # characters of a class name, and so of a label that is text
MAX_PATH = MAX_CELL  # characters of a path or of a key
MAX_ENTRIES = 5_000_000  # of an archive
MAX_ENCODED = 300 * 2**20  # bytes of one encoded picture; the largest BMP that is read has 256 million
MAX_HEADER = 2**20  # bytes of one header of a tar, extended headers included; a path has 4,096 at most
MAX_TOGETHER = 2 * 2**30  # bytes of arrays and pictures that can only be held at once
# Deflate cannot do better than 1032 : 1 (zlib's own documentation), so a header that promises more is a bomb.
MAX_DEFLATE = 1032
MAX_GROWTH = 200  # times the archive's bytes that all its entries may have; pictures hardly shrink when they are packed
SMALL_GROWTH = 256 * 2**20  # bytes that are let pass whatever the archive's size


def most_unpacked(size: int) -> int:
    """Bytes that an archive of ``size`` bytes may hold."""
    return max(SMALL_GROWTH, MAX_GROWTH * size)
