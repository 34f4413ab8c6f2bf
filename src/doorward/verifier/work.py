"""A bound on the steps that a file may cause, so that no file keeps the checker busy for ever."""

from __future__ import annotations

MOST = 2_000_000_000  # steps of flip smoothing; about a minute of a processor, where a file takes them all
MOST_EXACT = 3 * MOST  # of the deterministic methods: honest certificates of many images and classes take more


class Work:
    """Counts steps, each worth some nanoseconds; the same file takes the same number on any machine."""

    def __init__(self, most: int = MOST) -> None:
        self.left = most

    def do(self, steps: int) -> None:
        """Count ``steps`` that are about to be taken; ValueError where the file asks for too many."""
        self.left -= steps
        if self.left < 0:
            raise ValueError("takes too many steps to check; expected noise and evidence of smaller radii")
