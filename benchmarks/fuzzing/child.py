"""A child that reads one damaged file after another under a limit of memory, and says what came of each."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.fuzzing.damage import OUTSIDE, damaged
from benchmarks.fuzzing.seeds import READERS, Seed

GUARD = 512 * 2**20  # bytes that one case may add
_ROOM = 2 * 2**30  # and where the system ends it
_DEEP = Path("one/two/three/four/five/six")  # so that what climbs out of a folder is still seen
_EMPTIED = 100  # cases

REFUSED, ACCEPTED, FAILED = "refused", "accepted", "failed"


def make_case(seed: Seed, name: str, number: int, run: int) -> tuple[str, bytes]:
    """The path that is damaged in this case, and its new bytes: the same for the same numbers."""
    rng = random.Random(f"{run}/{name}/{number}")
    path = rng.choice(seed.damaged)
    data = damaged(seed.files[path], rng, seed.mend)
    return path, data if seed.pack is None else seed.pack(data)


def serve(connection: Connection, seeds: dict[str, Seed], run: int, scratch: Path) -> None:
    """Take ``(name, first, count)`` until there is None; answer every case with ``(number, outcome, told)``."""
    place = scratch / _DEEP
    for folder in ("case", "cache", "here"):
        (place / folder).mkdir(parents=True)
    os.environ |= {"DOORWARD_CACHE": str(place / "cache"), "HOME": str(place / "here"), "TMPDIR": str(place / "here")}
    os.chdir(place / "here")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    warnings.simplefilter("ignore")
    for read in {seed.read for seed in seeds.values()}:
        warm_up(read, seeds, place)
    held = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_DATA, (held + _ROOM, held + _ROOM))
    while (asked := connection.recv()) is not None:
        name, first, count = asked
        seed = seeds[name]
        lay_out(seed, place / "case")
        for number in range(first, first + count):
            path, data = make_case(seed, name, number, run)
            (place / "case" / path).write_bytes(data)
            connection.send((number, *outcome(seed, place)))
            (place / "case" / path).write_bytes(seed.whole(path))
            if number % _EMPTIED == 0:
                shutil.rmtree(place / "cache")
                (place / "cache").mkdir()


def lay_out(seed: Seed, case: Path) -> None:
    """The whole files of a seed, and nothing else."""
    shutil.rmtree(case)
    for path in seed.files:
        (case / path).parent.mkdir(parents=True, exist_ok=True)
        (case / path).write_bytes(seed.whole(path))


def warm_up(read: str, seeds: dict[str, Seed], place: Path) -> None:
    """Read whole files once, so that imports are no part of a case; a whole file that is refused is our mistake."""
    for seed in seeds.values():
        if seed.read != read:
            continue
        lay_out(seed, place / "case")
        READERS[read](place / "case" / seed.source)


def outcome(seed: Seed, place: Path) -> tuple[str, str]:
    """What came of a case, and what was told."""
    from doorward import DoorwardError

    before = _peak(reset=True)
    told, found = "", ACCEPTED
    try:
        READERS[seed.read](place / "case" / seed.source)
    except DoorwardError as error:
        told, found = str(error), REFUSED
        if not told.isprintable() or len(told) > 4000:
            return FAILED, f"not one printable line: {told[:500]!a}"
        if _without_memory(error):
            return FAILED, f"memory: {told}"
    except BaseException:
        return FAILED, "".join(traceback.format_exception(*sys.exc_info())[-6:])
    grown = _peak() - before
    if grown > GUARD:
        return FAILED, f"memory: {grown / 2**20:.0f} MiB more, then {found} {told}"
    if strays := _strays(place, seed):
        return FAILED, f"outside: {strays}"
    return found, told[:300]


def _without_memory(error: BaseException) -> bool:
    """Whether an allocation failed on the way: the size was not looked at first."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or "bad_alloc" in str(seen) or "Out of Memory" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _peak(reset: bool = False) -> int:
    """Peak memory of this process in bytes, since the last reset; what it has now, with a reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def _strays(place: Path, seed: Seed) -> list[str]:
    """Files that the case has made out of its place; they are removed."""
    top = place
    for _ in _DEEP.parts:
        top = top.parent
    found = [str(path) for path in (Path("/tmp") / OUTSIDE, Path("/") / OUTSIDE) if os.path.lexists(path)]
    folder = top
    for part in _DEEP.parts:
        found += [str(path) for path in folder.iterdir() if path.name != part]
        folder = folder / part
    found += [str(path) for path in place.iterdir() if path.name not in ("case", "cache", "here")]
    found += [str(path) for path in (place / "here").iterdir()]
    found += [str(path) for path in (place / "cache").iterdir() if path.name not in ("archives", "decoded")]
    known = {place / "case" / name for name in seed.files}
    found += [str(path) for path in (place / "case").rglob("*") if path.is_file() and path not in known]
    for path in map(Path, found):  # the next case is not to blame
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return found
