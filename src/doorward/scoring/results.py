"""``score.json``: what was computed with the truth; one definition for writer, reader, report and papers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.results import Count, Number, RateRecord, Record, parse

FILE = "score.json"


class AttackFacts(Record):
    """The attack; ``targets``: the classes into which it put images."""

    recipe: str
    description: str = ""
    poisoned: Count
    targets: tuple[int, ...] = ()


class MethodScore(Record):
    """How well a method's flags fit the truth.

    Args:
        tpr: poisoned images that were flagged.
        fpr: clean images of all classes that were flagged.
        fpr_target: clean images of the target class that were flagged.
        precision: flagged images that are poisoned.
        auroc: area under the ROC curve of the score; None when all or no images are poisoned.
    """

    tpr: RateRecord
    fpr: RateRecord
    fpr_target: RateRecord
    precision: RateRecord
    auroc: Number = None


class ModelScore(Record):
    """A classifier on held-out images: clean accuracy, and success of the attacker's own trigger."""

    name: str
    clean_accuracy: RateRecord
    asr: RateRecord


class HeldOutFacts(Record):
    """The held-out images that a repair was measured on."""

    name: str
    images: Count


class ScoreRecord(Record):
    """A finished run against the truth; ``attack`` is None for an unpoisoned control."""

    attack: AttackFacts | None = None
    methods: dict[str, MethodScore] = Field(default_factory=dict)
    models: tuple[ModelScore, ...] = ()
    test: HeldOutFacts | None = None

    def write(self, run: Path) -> None:
        """Write ``score.json`` into a finished run."""
        write_json(run / FILE, self.model_dump(mode="json", exclude=None if self.test else {"test"}))

    @classmethod
    def read(cls, run: Path) -> ScoreRecord | None:
        """The score of a run; None when it has none."""
        path = run / FILE
        return parse(cls, read_json(path), path) if path.exists() else None
