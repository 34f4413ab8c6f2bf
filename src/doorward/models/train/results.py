"""What a training writes into ``run.json``."""

from __future__ import annotations

from doorward.core.results import Count, Number, RateRecord, Record


class TrainRecord(Record):
    """``results`` of a train run.

    Args:
        images: trained on.
        loss: of the last epoch.
        test_accuracy: None without test images.
        notes: what was converted or replaced.
        warnings: why the net may not have learned.
    """

    images: Count
    loss: Number = None
    images_per_second: Number = None
    test_accuracy: RateRecord | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
