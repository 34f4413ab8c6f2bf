"""What a deterministic method of `certify` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Proof:
    """Labels that surely hold.

    Args:
        predicted: int64 ``[M]``; ABSTAIN (-1) where two classes tie.
        radii: int64 ``[M]``; ABSTAIN where ``predicted`` is.
        evidence: integers from which a checker derives both again; plain JSON values.
    """

    predicted: NDArray[np.int64]
    radii: NDArray[np.int64]
    evidence: dict[str, Any]
