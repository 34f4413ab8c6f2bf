"""A proof in few words, for the columns of a table."""

from __future__ import annotations

from doorward.repairs.results import ArmRecord


def variations_cell(arm: ArmRecord) -> str:
    """Success of variations of the triggers, one target behind the other; a dash where there is no proof."""
    return ", ".join(str(v.success.rate()) for v in arm.proof.variations) or "-" if arm.proof else "-"
