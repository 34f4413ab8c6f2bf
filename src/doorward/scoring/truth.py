"""What is known of an attack: its own record, or no more than a list of the poisoned images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from doorward.attacks.files import load_attack, load_truth
from doorward.attacks.plan import Attack
from doorward.attacks.results import AttackRecord
from doorward.core.errors import DoorwardError
from doorward.core.progress import printable
from doorward.core.results import ImagesRecord, read_record
from doorward.scoring.results import AttackFacts

Flags = NDArray[np.bool_]
_YES = ("1", "true", "yes", "t", "y")


class Named(Protocol):
    """The table of a run: every image's label ``[N]`` and name."""

    @property
    def label(self) -> NDArray[np.int64]:
        """Labels."""
        ...

    def name(self, row: int) -> str:
        """What an image is called."""
        ...


@dataclass(frozen=True, eq=False)
class Known:
    """Who is poisoned ``[N]``; the attack where it left its record; the classes into which images were put."""

    poisoned: Flags
    attack: Attack | None
    targets: tuple[int, ...]
    file: Path | None = None

    def facts(self, classes: tuple[str, ...]) -> AttackFacts | None:
        """For the record; None for a clean control."""
        count = int(self.poisoned.sum())
        return None if self.file is None else describe(self.file, self.attack, count, self.targets, classes)


def describe(
    file: Path, attack: Attack | None, count: int, targets: Sequence[int], classes: Sequence[str]
) -> AttackFacts:
    """The attack for the record of a score.

    Args:
        count: poisoned images.
    """
    if attack is None:
        told = f"poisoned images as {file.name} lists them"
        return AttackFacts(recipe="not known", description=told, poisoned=count, targets=tuple(targets))
    told = attack.describe(tuple(classes))
    return AttackFacts(recipe=attack.recipe, description=told, poisoned=count, targets=tuple(targets))


def attack_beside(file: Path) -> Attack | None:
    """The attack whose truth the file is, where it lies beside it."""
    return load_attack(file.parent / "attack") if (file.parent / "attack" / "attack.json").is_file() else None


def read_truth(file: Path | None, samples: Named, images: ImagesRecord) -> Known:
    """What a file says of the images that a run looked at.

    Args:
        file: ``truth.parquet`` of an attack; or a CSV with a column ``id``, or a text file with one id on every line,
            of the poisoned images. None for a clean control.
        images: that the run looked at, which are those of the attack where that left its record.

    Raises:
        DoorwardError: the truth of another set; an id that no image has; no image listed.
    """
    if file is None:
        return Known(np.zeros(len(samples.label), bool), None, ())
    attack = None
    if file.suffix.lower() == ".parquet":
        poisoned, attack = _of_attack(file, len(samples.label), images), attack_beside(file)
    else:
        poisoned = _of_ids(file, listed_ids(file), samples)
    return Known(poisoned, attack, target_classes(attack, poisoned, samples.label), file)


def target_classes(attack: Attack | None, poisoned: Flags, labels: NDArray[np.int64]) -> tuple[int, ...]:
    """The classes into which the attack put images."""
    named = {p.target for p in attack.pairings if p.target is not None} if attack else set()
    return tuple(sorted(named | set(np.unique(labels[poisoned]).tolist())))


def listed_ids(file: Path) -> list[str]:
    """The ids that a CSV (column ``id``; where there is a column ``poisoned``, those that are) or a text file lists.

    Raises:
        DoorwardError: a file that cannot be read, has no such column, or lists nothing.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            if file.suffix.lower() == ".csv":
                table = csv.DictReader(opened)
                columns = table.fieldnames or ()
                if "id" not in columns:
                    shown = printable(", ".join(columns)[:100])
                    raise DoorwardError(f"{file}: columns {shown or 'none'}; expected a column 'id'")
                chosen = [row for row in table if (row.get("poisoned") or "1").strip().lower() in _YES]
                ids = [row["id"] for row in chosen if row["id"]]
            else:
                ids = [line.strip("\r\n") for line in opened if line.strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told = getattr(error, "strerror", None) or "no text"
        raise DoorwardError(
            f"{file}: {told}; expected ids one a line, a CSV with a column 'id', or truth.parquet"
        ) from None
    if not ids:
        raise DoorwardError(f"{file}: lists no image; expected some that are poisoned, or --clean")
    return ids


def _of_ids(file: Path, ids: Sequence[str], samples: Named) -> Flags:
    rows = {samples.name(row): row for row in range(len(samples.label))}
    poisoned = np.zeros(len(samples.label), bool)
    for name in ids:
        row = rows.get(name)
        if row is None:
            example = printable(samples.name(0))
            told = f"{printable(name)[:80]!r} is no image of the run; expected names such as {example!r}"
            raise DoorwardError(f"{file}: {told}")
        poisoned[row] = True
    return poisoned


def _of_attack(file: Path, count: int, images: ImagesRecord) -> Flags:
    truth = load_truth(file)
    if count != len(truth.poisoned):
        told = f"{len(truth.poisoned)} images, the run looked at {count}"
        raise DoorwardError(f"{file}: holds the truth about {told}; expected the truth of the same set")
    known = (file.parent / "run.json").exists()
    if known and not images.are([read_record(AttackRecord, file.parent, "attack").sha256]):
        told = f"as many images as the run looked at ({count}), but others"
        raise DoorwardError(f"{file}: holds the truth about {told}; expected the truth of the same set")
    return truth.poisoned
