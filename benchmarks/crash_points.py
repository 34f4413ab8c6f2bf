"""Kills every command at every operation on files, and looks at what is left and at what the next command makes of it.

A case: the command is killed before operation k, in every third case the next one somewhere too. Then the named output
is the old one, the new one, or absent; and the same command, without or with --overwrite, ends well with the files of a
command that nobody killed, and nothing beside.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.crashing import KILLED, call, contents, fresh, strays, warm
from benchmarks.table import write

TOLD = (
    "Every command on a small set, alone and in place of another output, killed {}; in every third case the next "
    "command is killed too. Operations: makings, writings, renamings and removals of files and folders, in both ways "
    "together. A failure is a named output that is neither the old one, the new one nor absent, a next command that "
    "does not end well, other files than those of a command that nobody killed, or anything left beside."
)


@dataclass(frozen=True)
class Verb:
    """A command with the output ``out``.

    Args:
        arguments: of the command, without ``--overwrite``.
        other: changed arguments of the run that is to be replaced; None where nothing can be replaced.
        output: what it writes.
        within: a finished run that it writes into, copied from the world as ``out``.
        parts: whether the output is a folder of outputs that come one after the other.
    """

    name: str
    arguments: tuple[str, ...]
    other: tuple[str, ...] | None = ("--seed", "5")
    output: str = "out"
    within: str = ""
    parts: bool = False


def _verbs() -> tuple[Verb, ...]:
    images, model = "../world/images", "../world/model"
    quick = ("--set", "mask.steps=12", "--set", "mask.batch=8")
    fetched = ("data", "fetch", "mnist", "--cache", "out")
    return (
        Verb("attack", ("attack", images, "--rate", "0.2", "-o", "out")),
        Verb("train", ("train", images, "--epochs", "2", "-o", "out")),
        Verb("cleanse", ("cleanse", images, "--model", model, "--method", "impurity", "-o", "out")),
        Verb("invert", ("invert", model, "--images", images, "--method", "mask", *quick, "-o", "out")),
        Verb("invert, references", ("invert", model, "--images", images, "--method", "mask", *quick,
                                    "--train-references", "2", "-o", "out")),
        Verb("repair", ("repair", model, "--images", images, "--method", "fine-tune", "--method", "refresh",
                        "--set", "fine-tune.epochs=1", "--set", "refresh.passes=1", "--no-controls", "-o", "out")),
        Verb("screen", ("screen", model, "--images", images, "--clean", "../world/clean", "--rate", "0.2",
                        "-o", "out")),
        Verb("certify", ("certify", "mnist-5k", "--classes", "1,7", "--train", "20", "--test", "10", "--keep", "0.9",
                         "--trials", "200", "--workers", "1", "-o", "out")),
        Verb("audit", ("audit", images, "--model", model, "-o", "out")),
        Verb("report", ("report", "../world/cleansed", "-o", "out"), other=("--title", "other")),
        Verb("score", ("score", "out", "--clean"), other=None, within="cleansed"),
        Verb("export", ("export", "../world/cleansed", "-o", "out", "--format", "npz"), other=None),
        Verb("data export, folder", ("data", "export", "../world/photos", "-o", "out"), other=None),
        Verb("data export, csv", ("data", "export", "../world/photos", "--format", "csv", "-o", "out"), other=None),
        Verb("data export, parquet", ("data", "export", images, "--format", "parquet", "-o", "out"), other=None),
        Verb("data export, ids", ("data", "export", images, "--format", "ids", "-o", "out"), other=None),
        Verb("data fetch", fetched, other=None, output="out/sets/mnist"),
    )  # fmt: skip


VERBS = _verbs()


@dataclass
class Tally:
    """What came of the cases of one verb."""

    operations: int
    cases: int
    failures: list[str]


class Trial:
    """One verb in its own folders: what it writes when nobody kills it, and what came of killing it.

    Args:
        place: a folder for everything; ``world`` lies in it.
    """

    def __init__(self, verb: Verb, place: Path, replace: bool) -> None:
        self.verb, self.place, self.replace = verb, place, replace
        self.arguments = (*verb.arguments, *(["--overwrite"] if replace else []))
        self.given = fresh(place / "given")
        if verb.within:
            fresh(self.given / "out", place / "world" / verb.within)
        if replace:
            call((*verb.arguments, *(verb.other or ())), self.given)
        self.old = contents(self.given / verb.output)
        whole = fresh(place / "whole", self.given)
        ended = call(self.arguments, whole)
        self.code, self.new, self.operations = ended.code, contents(whole / verb.output), len(ended.operations)
        beside = strays(whole, {"out"})
        if self.code in (2, 70) or self.new is None or beside:
            raise RuntimeError(f"{verb.name}: ends with {self.code}, leaves {beside}: {ended.said}")

    def kill(self, point: int, *, overwrite: bool, twice: int = 0) -> str:
        """Kill it before operation ``point``; what is wrong afterwards, or nothing.

        Args:
            overwrite: whether the next command is told to replace what is there.
            twice: where the next one is killed too, and the one after it goes on; 0 for not.
        """
        folder = fresh(self.place / "case", self.given)
        killed = call(self.arguments, folder, stop_at=point)
        if killed.code != KILLED:
            return f"{point}: ended with {killed.code}, was not killed: {killed.said}"
        found = contents(folder / self.verb.output)
        if found not in (None, self.old, self.new) and not (self.verb.parts or self._scored(found)):
            return f"{point}: neither the old nor the new one"
        again = self.arguments if self.replace or not overwrite else (*self.arguments, "--overwrite")
        if twice:
            call(again, folder, stop_at=twice)
        told = f"{f', then {twice}' if twice else ''}{', then --overwrite' if overwrite else ''}"
        return self._goes_on(folder, again, f"{point}{told}")

    def fill(self, point: int) -> str:
        """Let the disk be full from operation ``point`` on; what is wrong afterwards, or nothing."""
        folder = fresh(self.place / "case", self.given)
        ended = call(self.arguments, folder, full_from=point)
        said = [line for line in ended.said.split("\n") if line.startswith("doorward:")]
        if ended.code == self.code:  # what it could not write any more was of no weight
            return "" if contents(folder / self.verb.output) == self.new else f"full at {point}: not as it should be"
        if ended.code != 2 or len(said) != 1 or "Traceback" in ended.said:
            return f"full at {point}: {ended.code}, {ended.said}"
        found = contents(folder / self.verb.output)
        if found not in (self.old, self.new, *([] if self.replace else [None])) and not self.verb.parts:
            return f"full at {point}: the old one is not whole"
        return self._goes_on(folder, self.arguments, f"full at {point}")

    def _scored(self, found: Any) -> bool:
        """A run that is written into may hold what was begun, under a temporary name."""
        if not self.verb.within:
            return False
        return {k: v for k, v in found.items() if not k.endswith(".tmp")} in (self.old, self.new)

    def _goes_on(self, folder: Path, arguments: Sequence[str], where: str) -> str:
        """The command once more: the files of one that nobody killed, and nothing beside."""
        before = contents(folder / self.verb.output)
        again = call(arguments, folder)
        found = contents(folder / self.verb.output)
        if again.code == 2 and "exists already" in again.said and "--overwrite" not in arguments:
            if before not in (None, self.new):
                return f"{where}: {again.said}"
        elif again.code != self.code:
            return f"{where}: ends with {again.code}, expected {self.code}: {again.said}"
        if found != self.new:
            return f"{where}: other files, {_difference(found, self.new)}"
        beside = strays(folder, {"out"})
        return f"{where}: leaves {beside}" if beside else ""


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        names = [k for k in {**found, **expected} if found.get(k) != expected.get(k)]
        return ", ".join(f"{k} ({_difference(found.get(k), expected.get(k))})" for k in names[:4])
    return f"{str(found)[:200]} / {str(expected)[:200]}"


def make_world(place: Path, *, model: bool = True) -> None:
    """Small images, some photographs and, unless they are not needed, a trained model and a cleansing."""
    from PIL import Image

    from doorward.core.images import ImageSet

    rng, world = np.random.default_rng(0), fresh(place / "world")
    for name, count in (("images", 48), ("clean", 36)):
        labels = np.arange(count, dtype=np.int64) % 3
        pixels = rng.integers(0, 60, (count, 12, 12, 1)) + (labels * 60)[:, None, None, None]
        (world / name).mkdir()
        ImageSet(pixels.astype(np.uint8), labels, ("a", "b", "c"), name).save(world / name)
    for number in range(6):
        path = world / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)
    for arguments in (
        ("train", "../world/images", "--epochs", "3", "-o", "../world/model"),
        ("cleanse", "../world/images", "--model", "../world/model", "--method", "impurity", "-o", "../world/cleansed"),
    )[: 2 * model]:
        ended = call(arguments, fresh(place / "making"))
        if ended.code == 2:
            raise RuntimeError(ended.said)


def lighten() -> None:
    """Short audits and proofs, and a download that comes from nowhere."""
    from functools import partial

    from doorward.audits import audit, gathering, rounds
    from doorward.audits.parts import trainer
    from doorward.core.images import ImageSet
    from doorward.data import download
    from doorward.inversion.invert import invert
    from doorward.repairs import proof

    trainer._STEPS, audit.MOST_ROUNDS, rounds.MOST = 6, 1, 1
    short = {name: {"steps": 12, "batch": 8} for name in ("mask", "universal")}
    gathering.invert = partial(invert, settings=short)  # type: ignore[attr-defined]
    look: Any = vars(proof)["look"]
    vars(proof)["look"] = lambda model, images, seed, _: look(model, images, seed, short)
    images = ImageSet(np.zeros((4, 6, 6, 1), np.uint8), np.arange(4, dtype=np.int64) % 2, ("a", "b"))

    def takes(entry: Any, source: Any, scratch: Path) -> Any:
        (scratch / "package").mkdir()
        (scratch / "package" / "x").write_text("x")
        return {"train": images, "test": images}

    download._first_that_works, download.checked = takes, lambda entry, split, given: given  # type: ignore[assignment]


def try_verb(verb: Verb, place: Path, *, most: int = 0, full: int = 0, both: bool = False, seed: int = 0) -> Tally:
    """Kill a verb at all points, or at so many drawn ones; without and with something to be replaced.

    Args:
        most: points per case; 0 takes all. ``full``: the same for a full disk.
        both: whether every kill is followed by a command with and one without ``--overwrite``, else by turns.
    """
    tally, rng = Tally(0, 0, []), random.Random(seed)
    for replace in (False, True) if verb.other is not None else (False,):
        trial = Trial(verb, place, replace)
        tally.operations += trial.operations
        for number, point in enumerate(_drawn(range(1, trial.operations + 1), most, rng)):
            ways = (False,) if replace or verb.other is None else (False, True) if both else (number % 2 == 1,)
            twice = rng.randint(1, trial.operations) if number % 3 == 0 else 0
            _count(tally, verb, replace, (trial.kill(point, overwrite=way, twice=twice) for way in ways))
        for point in _drawn(range(1, trial.operations + 1), full, rng):
            _count(tally, verb, replace, [trial.fill(point)])
    return tally


def _drawn(points: range, most: int, rng: random.Random) -> Sequence[int]:
    return sorted(rng.sample(points, most)) if 0 < most < len(points) else points


def _count(tally: Tally, verb: Verb, replace: bool, wrong: Iterable[str]) -> None:
    for told in wrong:
        tally.cases += 1
        if told:
            tally.failures.append(f"{verb.name}{', replacing' if replace else ''}: {told}")


def main(names: Sequence[str] = (), most: int = 0) -> None:
    """Kill all verbs, or those named, at all points or at most so many each, and write a table of all."""
    warm()
    lighten()
    wrong, rows = list[str](), list[list[str]]()
    head = ["command", "operations", "cases", "failures", "seconds"]
    print(f"| {' | '.join(head)} |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="doorward-crash-") as scratch:
        place = Path(scratch)
        chosen = [verb for verb in VERBS if not names or verb.name in names]
        words = {Path(word).name for verb in chosen for word in (*verb.arguments, verb.within)}
        make_world(place, model=not words.isdisjoint({"model", "cleansed"}))
        for verb in chosen:
            started = time.monotonic()
            tally = try_verb(verb, place, most=most, full=(most + 1) // 2)
            figures = tally.operations, tally.cases, len(tally.failures), round(time.monotonic() - started)
            rows.append([verb.name, *(f"{n:,}" for n in figures)])
            print(f"| {' | '.join(rows[-1])} |", flush=True)
            wrong += tally.failures
    if not names:
        drawn = f"at {most} operations of each command, drawn at random, and on a full disk from half as many on"
        write("crash_points", "Killed at any moment", TOLD.format(drawn if most else "at every operation"), head, rows)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    import sys

    given = sys.argv[1:]
    main([name for name in given if not name.isdigit()], max((int(n) for n in given if n.isdigit()), default=0))
