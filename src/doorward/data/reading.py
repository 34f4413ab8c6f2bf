"""`Reading`: how a source is to be read; every request that reads images has these fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.core.settings import Settings
from doorward.data.checks import check_auditable

LARGEST = 4096

Resize = Literal["crop", "squash"]


class Reading(Settings):
    """How to read a source of images."""

    split: Literal["train", "test"] = Field("train", description="train or test, for sets that have both.")
    size: int | None = Field(
        None, ge=1, le=LARGEST, description="Resize every picture to this many pixels, N x N; needed for mixed sizes."
    )
    resize: Resize = Field(
        "crop", description="crop: shorter side to the size, then the centre; squash: both sides to the size."
    )
    skip_bad: bool = Field(False, description="Leave out files that cannot be read, and list them.")
    any_labels: bool = Field(
        False, description="Labels do not matter: a folder of pictures without class folders, or of one class, will do."
    )

    def check(self, labels: NDArray[np.int64], classes: Sequence[str], where: object) -> None:
        """Refuse a set that cannot be audited, where its labels matter."""
        if not self.any_labels:
            check_auditable(labels, classes, where)
