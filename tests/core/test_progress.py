"""Progress on stderr: lines where it is no terminal, a bar on one, nothing for short work."""

from __future__ import annotations

import io
import sys
import time

import pytest

from doorward.core import progress
from doorward.core.progress import describe, display, in_words, telling, time_left


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.2)
    monkeypatch.setattr(progress, "_EVERY", 0.5)


def test_a_step_in_words() -> None:
    assert describe("features", 12_000, 50_000) == "features 12,000 of 50,000"
    assert describe("net, epoch", 1, 2, "loss 0.5") == "net, epoch 1 of 2, loss 0.5"
    assert describe("attack", 0, 0) == "attack"
    assert describe("\x1b[31mred", 0, 0) == "\ufffd[31mred"


def test_words_and_back() -> None:
    told: list[str] = []
    telling(told.append, "case 1: ")("repair", 1, 4, "slow")
    in_words(lambda stage, done, total, note="": told.append(f"{stage}|{total}"))("stage")
    in_words(None)("nobody listens")
    assert told == ["case 1: repair 1 of 4, slow", "stage|0"]


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with display("cleanse") as told:
        told("features", 1, 2)
    time.sleep(0.3)
    assert capsys.readouterr() == ("", "")


def test_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with display("cleanse") as told:
        for done in range(100):
            told("features", 1000 * done, 100_000)
            time.sleep(0.012)
        time.sleep(0.6)  # nothing new happens: nothing is said again
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and 2 <= len(lines) <= 4, lines
    assert all(line.startswith("cleanse: features ") and line.endswith(",000 of 100,000") for line in lines)
    assert len(set(lines)) == len(lines)


def test_a_long_step_is_said_again_with_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.1)
    monkeypatch.setattr(progress, "_STILL", 0.35)
    with display("train") as told:
        time.sleep(0.9)
        told("epoch", 1, 2)
        time.sleep(0.7)
    lines = capsys.readouterr().err.splitlines()
    before, after = lines[: lines.index("train: epoch 1 of 2")], lines[lines.index("train: epoch 1 of 2") + 1 :]
    assert 1 <= len(before) <= 2 and set(before) <= {f"train: at work, for {s} s now" for s in (0, 1)}
    assert 1 <= len(after) <= 2 and set(after) <= {f"train: epoch 1 of 2, for {s} s now" for s in (0, 1)}


def test_one_display_within_another_writes_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    with display("train") as outer:
        with display("reading") as inner:
            inner("decoding", 1, 2)
            assert inner is outer
        time.sleep(0.4)
    assert capsys.readouterr().err == "train: decoding 1 of 2\n"


def test_it_ends_with_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), display("first") as told:
        told("a", 1, 2)
        raise ValueError
    with display("second") as told:
        told("b", 1, 2)
        time.sleep(0.4)
    assert capsys.readouterr().err == "second: b 1 of 2\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("seconds", [0.0, 0.6])
def test_a_bar_on_a_terminal_that_outlives_patience(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with display("repair") as told:
        told("[bold]arm", 1, 4, "slow")
        time.sleep(seconds)
    shown = terminal.getvalue()
    assert ("repair: [bold]arm" in shown and "1 of 4  slow" in shown) == (seconds > 0), shown
    assert (shown == "") == (seconds == 0)


def test_the_time_left_follows_from_the_pace() -> None:
    assert time_left(10, 190, 10.0) == "about 3 minutes left"
    assert time_left(10, 20_000, 10.0) == "about 5.6 hours left"
    assert time_left(10, 20, 10.0) == time_left(0, 20_000, 10.0) == time_left(10, 20_000, 1.0) == ""
