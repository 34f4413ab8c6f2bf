"""A proof in few words, for the columns of a table."""

from __future__ import annotations

from doorward.core.text import number
from doorward.repairs.results import ArmRecord


def proof_cells(arm: ArmRecord, given: ArmRecord) -> tuple[str, str, str]:
    """Success of variations, the target's size before and after, and p; dashes where there is no proof.

    Several targets, or methods, stand behind each other.
    """
    proof = arm.proof
    if proof is None:
        return "-", "-", "-"
    varied = ", ".join(str(v.success.rate()) for v in proof.variations)
    before = {(s.method, s.label): s.size for s in given.proof.standings} if given.proof else {}
    sizes = []
    for s in proof.standings:
        old, new = number(before.get((s.method, s.label))), number(s.size)
        sizes.append(f"{s.method} {new}" if arm.role == "given" else f"{s.method} {old} -> {new}")
    return varied or "-", ", ".join(sizes) or "-", ", ".join(number(p) for p in proof.p_values.values()) or "-"
