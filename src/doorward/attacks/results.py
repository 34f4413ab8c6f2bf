"""What an attack writes into ``run.json``; who is poisoned stands in ``truth.parquet`` alone."""

from __future__ import annotations

from doorward.core.results import Count, Record


class AttackRecord(Record):
    """``results`` of an attack run.

    Args:
        images, poisoned: how many.
        sha256: of the poisoned set.
    """

    images: Count
    poisoned: Count
    recipe: str
    description: str = ""
    sha256: str
