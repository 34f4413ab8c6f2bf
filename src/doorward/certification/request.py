"""`CertifyRequest`: what a certification is asked for, in plain values. The command's options are made from it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from doorward.core.settings import Settings
from doorward.data.reading import LARGEST, Reading, Resize


class Draw(Settings):
    """Which images of a source are trained on and tested; a certificate tells it, so that it can be drawn again."""

    classes: tuple[str, ...] = Field((), max_length=1 << 16)
    train: int = Field(ge=1)
    test: int = Field(ge=1)
    draw: int = Field(0, ge=0)
    skip: int = Field(0, ge=0)
    split: Literal["train", "test"] = "train"
    size: int | None = Field(None, ge=1, le=LARGEST)
    resize: Resize = "crop"


class CertifyRequest(Settings):
    """What ``doorward certify`` was asked for; the descriptions are the help of its options."""

    source: str = Field(description="Training and test images are drawn from this set, disjoint.")
    classes: tuple[str, ...] = Field((), description="Class names, separated by commas; default all.")
    train: int = Field(100, ge=1, description="Training images.")
    test: int = Field(1000, ge=1, description="Test images.")
    learner: str = Field("two-layer", description="See 'doorward methods certify'.")
    keep: str = Field("0.9", description="beta: probability that noise keeps a cell, as a decimal or a/b.")
    keep_labels: str | None = Field(None, description="beta of training labels, when it differs.")
    keep_test: str | None = Field(None, description="beta of test pixels, when it differs.")
    trials: int = Field(10_000, ge=1, description="N: models trained on noisy copies.")
    alpha: str = Field("0.001", description="Admitted failure probability.")
    radius: int | None = Field(None, ge=0, description="Refuse to start when no vote could reach it.")
    binarise: int | None = Field(
        128, ge=0, le=255, description="Pixels of this value or more are 1; 0: keep 256 values."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="Of the learner.")
    draw: int = Field(0, ge=0, description="Decides which images are drawn.")
    skip: int = Field(0, ge=0, description="Leave out the first so many images of the classes.")
    split: Literal["train", "test"] = "train"
    size: int | None = Field(None, ge=1, le=LARGEST, description=Reading.model_fields["size"].description)
    resize: Resize = Field("crop", description=Reading.model_fields["resize"].description)
    seed: int = Field(0, ge=0)
    workers: int = Field(0, ge=0, description="Processes; 0: as many as pay.")
    engine: Literal["local", "ray"] = Field("local", description="local, or ray (RAY_ADDRESS names the cluster).")
    device: str = "auto"
    search: bool | None = Field(
        None, description="Deterministic methods: attack, to see how far radii are from the truth."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Class names as an option gives them: text with commas."""
        return tuple(c.strip() for c in value.split(",") if c.strip()) if isinstance(value, str) else value

    @field_validator("binarise", mode="before")
    @classmethod
    def _all_values(cls, value: Any) -> Any:
        """0 is how an option says None."""
        return None if value == 0 and not isinstance(value, bool) else value
