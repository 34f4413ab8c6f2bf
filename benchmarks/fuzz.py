"""Damaged files for every reader: each must be read or refused in one line, soon, in little memory, in its place."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from benchmarks.fuzzing import child
from benchmarks.fuzzing.seeds import Seed, make
from benchmarks.table import write

SECONDS = 60
PATIENCE = 20.0  # seconds that one case may take
_BATCH = 25  # cases that a child is given at once
KEPT = Path("fuzz-failures")
_MOST_KEPT = 20  # failures of one reader


@dataclass
class _Worker:
    """A child, and what it is doing."""

    process: ForkProcess
    connection: Connection
    scratch: Path
    name: str = ""
    next: int = 0
    last: int = 0
    since: float = field(default_factory=time.monotonic)


def _seeds(readers: str) -> dict[str, Seed]:
    """Made in a child, since what makes them starts threads, and the children that read are forked from here."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(False)
    process = context.Process(target=lambda: sending.send(make()))
    process.start()
    sending.close()
    made: dict[str, Seed] = receiving.recv()
    process.join()
    found = {name: seed for name, seed in made.items() if any(word in name for word in readers.split("+"))}
    if not found:
        raise SystemExit(f"fuzz: no reader {readers!r}; expected words of {'; '.join(made)}, with + between them")
    return found


class Fuzz:
    """A run: which readers, how long, and what came of every case."""

    def __init__(self, seeds: dict[str, Seed], seed: int, jobs: int) -> None:
        self.context = multiprocessing.get_context("fork")
        self.seeds, self.seed, self.jobs = seeds, seed, jobs
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in self.seeds}
        self.workers: list[_Worker] = []
        self.begun = dict.fromkeys(self.seeds, 0)
        self.scratch = Path(tempfile.mkdtemp(prefix="doorward-fuzz-"))
        self.spent = dict.fromkeys(self.seeds, 0.0)  # seconds; the reader with the least is next

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        try:
            for _ in range(self.jobs):
                self._start()
            while self.workers:
                ready = wait([w.connection for w in self.workers], timeout=0.5)
                for worker in list(self.workers):
                    self._turn(worker, worker.connection in ready, end)
        finally:
            for worker in self.workers:
                worker.process.kill()
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self) -> None:
        here, there = self.context.Pipe()
        scratch = Path(tempfile.mkdtemp(dir=self.scratch))
        process = self.context.Process(target=child.serve, args=(there, self.seeds, self.seed, scratch), daemon=True)
        process.start()
        there.close()
        worker = _Worker(process, here, scratch)
        self.workers.append(worker)
        self._ask(worker)

    def _ask(self, worker: _Worker) -> None:
        busy = {w.name for w in self.workers if w is not worker}
        name = min(self.seeds, key=lambda n: (n in busy, self.spent[n]))
        worker.name, worker.next = name, self.begun[name]
        worker.last = worker.next + _BATCH
        self.begun[name] = worker.last
        worker.since = time.monotonic()
        worker.connection.send((name, worker.next, _BATCH))

    def _turn(self, worker: _Worker, ready: bool, end: float) -> None:
        """Take what a child says; where it is dead or late, that is the case's fault, and another takes over."""
        why = ""
        try:
            while ready and worker.connection.poll():
                number, outcome, told = worker.connection.recv()
                self._note(worker.name, number, outcome, told)
                now = time.monotonic()
                self.spent[worker.name] += now - worker.since
                worker.next, worker.since = number + 1, now
        except (EOFError, OSError):
            worker.process.join(5)
            why = f"died with exit code {worker.process.exitcode}"
        if not why and time.monotonic() - worker.since > PATIENCE:
            why = f"took more than {PATIENCE:g} seconds"
        if why:
            self._note(worker.name, worker.next, child.FAILED, why)
            self.spent[worker.name] += time.monotonic() - worker.since
            worker.process.kill()
            self.workers.remove(worker)
            if time.monotonic() < end:
                self._start()
        elif worker.next >= worker.last:
            if time.monotonic() < end:
                self._ask(worker)
            else:
                worker.connection.send(None)
                worker.process.join(5)
                self.workers.remove(worker)

    def _note(self, name: str, number: int, outcome: str, told: str) -> None:
        self.counts[name][outcome] += 1
        if outcome == child.FAILED and self.counts[name][outcome] <= _MOST_KEPT:
            seed = self.seeds[name]
            path, data = child.make_case(seed, name, number, self.seed)
            folder = KEPT / f"{name.replace(', ', '-')}-{self.seed}-{number}"
            for other, content in {**{p: seed.whole(p) for p in seed.files}, path: data}.items():
                (folder / other).parent.mkdir(parents=True, exist_ok=True)
                (folder / other).write_bytes(content)
            (folder / "told.txt").write_text(f"{name}: {path}\n{told}\n")
            print(f"{name} {number}: {told.strip().splitlines()[-1][:200]}", flush=True)

    @property
    def failures(self) -> int:
        return sum(counts[child.FAILED] for counts in self.counts.values())


def main(seconds: int | None = None, seed: int = 0, jobs: int = 1, readers: str = "") -> None:
    """Try for so many seconds, and write the table of all readers; ends with an error where a case failed."""
    seconds = SECONDS if seconds is None else seconds
    os.environ["OMP_NUM_THREADS"] = "1"
    fuzz = Fuzz(_seeds(readers), seed, jobs)
    started = time.monotonic()
    fuzz.run(seconds)
    spent = time.monotonic() - started
    rows = []
    for name, counts in [*fuzz.counts.items(), ("all", sum(fuzz.counts.values(), Counter()))]:
        numbers = (counts.total(), counts[child.REFUSED], counts[child.ACCEPTED], counts[child.FAILED])
        rows.append([name, *(f"{n:,}" for n in numbers)])
    told = (
        f"Small whole files, made by code, with one to three changes each; seed {seed}, {spent:,.0f} seconds, "
        f"{fuzz.counts and sum(c.total() for c in fuzz.counts.values()) / spent:,.0f} cases/s. Refused: one printable "
        "line. A failure is anything else that is no success: another exception, a case of more than "
        f"{PATIENCE:g} seconds or {child.GUARD / 2**20:,.0f} MiB more memory, an allocation that failed, a killed "
        f"process, a file out of its place. Their files are kept in {KEPT}/."
    )
    if readers:
        print("\n".join("  ".join(row) for row in rows))
    else:
        write("fuzz", "Damaged files", told, ["reader", "cases", "refused", "accepted", "failures"], rows)
    if fuzz.failures:
        raise SystemExit(f"fuzz: {fuzz.failures} failures; their files are in {KEPT}/")
