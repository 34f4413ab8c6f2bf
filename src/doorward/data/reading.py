"""`Reading`: how a source is to be read; every request that reads images has these fields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from doorward.core.settings import Settings

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
