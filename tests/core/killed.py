"""Whatever writes, reduced to its operations on files, killed before each of them; and races for one output.

Run as a program of its own, which has imported little: each of some thousand forks then costs a few milliseconds.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from benchmarks.crash_points import Verb, try_verb
from benchmarks.crashing import OWN, call, contents, end, fresh, install, start, strays

from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.images import ImageSet
from doorward.core.leftovers import drop
from doorward.core.memmaps import create
from doorward.core.runs import Run, versions
from doorward.data.cache import new_folder
from doorward.data.export import export_images
from doorward.jobs.stages import Stage, claim_folder, run_once

RACES = 10


def ending(work: object) -> int:
    """As the command line ends: 2 and one line for a mistake."""
    try:
        work()  # type: ignore[operator]
    except (DoorwardError, OSError) as error:
        print(f"doorward: {error}", file=sys.stderr)
        return 2
    return 0


def _written(verb: str, *asked: str, seed: int = 1) -> None:
    seed = 5 if "--seed" in asked else seed
    with Run(Path("out"), verb, {"seed": seed}, "--overwrite" in asked) as run:
        steps = run.work / "steps"
        if not (steps / "2.json").exists():
            write_json(steps / "1.json", {"done": 1})
            write_json(steps / "2.json", {"done": 2})
        create(run.work / "images.npy", np.uint8, (64,))[:] = seed
        (run.work / "triggers").mkdir(exist_ok=True)
        write_json(run.work / "triggers" / f"{seed}.json", {"seed": seed})
        drop(steps)
        run.results = {"seed": seed}


def _stages(*_: str) -> None:
    claim_folder(Path("out"), {"seed": 1})

    def make(_: object) -> None:
        with Run(Path("out/a"), "train", {}) as run:
            write_json(run.work / "x.json", {})

    run_once([Stage("a", Path("out/a"), make)], lambda _: None)


def _exported(format: str) -> None:
    images = ImageSet(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 1]), ("a", "b"))
    export_images(images, "out", format)  # type: ignore[arg-type]


def _cached() -> None:
    if not Path("out/entry").is_dir():
        with new_folder(Path("out/entry")) as folder:
            write_json(folder / "a.json", {})
            write_json(folder / "b.json", {})


OWN |= {
    "resumed": lambda *asked: ending(lambda: _written("train", *asked)),
    "started-over": lambda *asked: ending(lambda: _written("attack", *asked)),
    "stages": lambda *asked: ending(lambda: _stages(*asked)),
    "exported": lambda format: ending(lambda: _exported(format)),
    "cached": lambda: ending(_cached),
}
VERBS = {  # and how many points are drawn; 0 for all
    Verb("resumed", ("resumed",)): 0,
    Verb("started over", ("started-over",)): 12,  # otherwise the same as the one before
    Verb("stages", ("stages",), other=None, parts=True): 0,
    **{Verb(f"export, {f}", ("exported", f), other=None): 0 for f in ("csv", "ids")},
    Verb("cached", ("cached",), other=None, output="out/entry"): 0,
}


def race(arguments: tuple[str, ...], place: Path, overwrite: bool) -> str:
    """Two at once on one output: what is wrong, or nothing."""
    folder = fresh(place / "race")
    if overwrite:
        call((*arguments, "--seed"), folder)
    asked = (*arguments, *(["--overwrite"] if overwrite else []))
    both = [start(asked, folder) for _ in range(2)]
    ended = [end(number, folder) for number in both]
    codes, lost = Counter(e.code for e in ended), [e.said for e in ended if e.code == 2]
    beside, found = strays(folder, {"out"}), contents(folder / "out")
    late = overwrite and codes == {0: 2}  # one came when the other was done
    one_line = all(told.count("\n") == 1 and ("by process" in told or "exists already" in told) for told in lost)
    if not (late or codes == {0: 1, 2: 1}) or not one_line or beside or found["run.json"]["results"] != {"seed": 1}:
        return f"race {asked}: {codes}, {lost}, {beside}, {found}"
    return ""


def main() -> None:
    """Print operations, cases and failures of everything."""
    versions(), platform.platform()  # kept by the process: no fork looks them up again
    install()
    with tempfile.TemporaryDirectory(prefix="doorward-killed-") as scratch:
        place = Path(scratch)
        (place / "world").mkdir()
        tallies = {verb.name: vars(try_verb(verb, place, most=most, full=8)) for verb, most in VERBS.items()}
        races = [race(("resumed",), place, number % 2 == 1) for number in range(RACES)]
    print(json.dumps({"killed": tallies, "races": [told for told in races if told]}))


if __name__ == "__main__":
    main()
