"""Tables from hand-made scores: means, worst triggers, the authors' cells beside ours, ratios, what is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from doorward.core.stats import Rate
from doorward.papers.mesa import tables
from doorward.papers.mesa.collect import Found
from doorward.papers.mesa.figures import plane
from doorward.papers.mesa.plan import make_plan
from doorward.papers.mesa.profiles import published
from doorward.papers.mesa.write import page_intro
from doorward.papers.rows import pooled

TOLD = "target class, size"


def row(case: str, arm: str, hits: int, *, rank: int = 0, right: int = 1800, **more: Any) -> dict[str, Any]:
    return {
        "case": case, "kind": "black-white" if case.startswith("bw") else "colour", "number": 0, "place": "free",
        "arm": arm, "rank": rank, "told": TOLD if arm.startswith(("mesa", "pixel")) else "", "asr_hits": hits,
        "asr_trials": 1800, "accuracy_hits": right, "accuracy_trials": 2000, **more,
    }  # fmt: skip


FOUND = Found(
    models=[
        row("bw-04", "before", 1782), row("bw-12", "before", 1710, right=1790),
        row("bw-04", "mesa-ensemble", 36, right=1796), row("bw-12", "mesa-ensemble", 72, right=1790),
        row("bw-04", "pixel-short", 18), row("bw-04", "pixel-short", 900, rank=1),
        row("bw-12", "pixel-short", 36), row("bw-12", "pixel-short", 36, rank=1),
        row("bw-04", "fine-tune", 1700),
        row("colour-00", "before", 1800), row("colour-00", "mesa-ensemble", 0), row("colour-00", "pixel-short", 9),
        row("bw-04-fixed", "before", 1000, place="fixed"), row("bw-04-fixed", "mesa-ensemble", 500, place="fixed"),
        row("bw-04-fixed", "mask", 140, place="fixed"),
    ]
)  # fmt: skip


def line(lines: list[str], start: str) -> list[str]:
    (found,) = [text for text in lines if text.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("| ").split(" | ")]


def test_means_and_worst_triggers_stand_beside_the_authors() -> None:
    lines = tables.summary(FOUND, "black-white")
    ensemble = line(lines, "**retrain, MESA ensemble**")
    assert ensemble[1:] == [
        TOLD, "2", str(Rate(108, 3600)), "3.6", f"{Rate(72, 1800)} (bw-12)", "8.2", str(Rate(3586, 4000)), "-0.10",
    ]  # fmt: skip
    before = line(lines, "backdoored net")
    assert before[5] == f"lowest: {Rate(1710, 1800)} (bw-12)" and before[4] == "98.7" and before[6] == "92.4"
    assert before[1] == "nothing" and before[8] == "–"


def test_the_baseline_is_averaged_over_its_runs_and_its_worst_runs_are_told() -> None:
    lines = tables.summary(FOUND, "black-white")
    pixel, worst = line(lines, "retrain, pixel baseline"), line(lines, "… the worst run")
    assert pixel[3] == str(Rate(18 + 900 + 36 + 36, 7200)) and pixel[4] == "10.5"
    assert pixel[5] == f"{Rate(918, 3600)} (bw-04)" and pixel[6] == "51.4"
    assert worst[3] == str(Rate(936, 3600)) and worst[5] == f"{Rate(900, 1800)} (bw-04)"
    assert line(lines, "control: fine-tune")[2] == "1", "an arm of one trigger is not averaged over two"
    assert line(lines, "control: fine-tune")[8] == "+0.00", "against the same trigger's net before repair"
    colour = tables.summary(FOUND, "colour")
    assert not any("worst run" in text for text in colour) and line(colour, "retrain, pixel")[4] == "22.75"
    assert tables.summary(Found(), "colour") == []
    longer = Found(models=[*FOUND.models, row("bw-04", "pixel", 1)])
    ours = line(tables.summary(longer, "black-white"), "retrain, pixel baseline, 200 steps")
    assert ours[3] == str(Rate(1, 1800)) and ours[4] == "–", "the authors' figure is beside their own budget"


def test_beside_ours_stand_the_authors_figures_for_the_same_images() -> None:
    hundred = tables.summary(FOUND, "colour", published("cifar100"))
    assert line(hundred, "retrain, pixel")[4] == "27.41"
    assert line(tables.summary(FOUND, "black-white", published("cifar100")), "retrain, pixel")[4] == "–"
    assert line(tables.summary(FOUND, "colour", published("mine/")), "retrain, pixel")[4] == "–"
    assert "the authors" not in tables.ratio(FOUND, "black-white", published("cifar100"))


def test_the_ratio_is_of_means() -> None:
    expected = (990 / 7200) / (108 / 3600)
    assert f"black-white: {expected:.1f} (13.75 / 3.00 %); the authors 2.9." in tables.ratio(FOUND, "black-white")
    assert "infinitely many (0.50 / 0.00 %)" in tables.ratio(FOUND, "colour")
    assert tables.ratio(Found(models=[row("bw-04", "before", 1)]), "black-white") == ""


def test_fixed_places_are_kept_apart() -> None:
    assert tables.free(FOUND, "black-white", "mask") == [] and "mask" not in tables.main_arms(FOUND)
    cases = line(tables.each_trigger(FOUND), "bw-04")
    assert cases[3] == f"{Rate(918, 3600)} (1.0–50.0)" and not any("fixed" in t for t in tables.each_trigger(FOUND))
    lines = tables.without_crutches(FOUND)
    assert [text.split(" | ")[0] for text in lines[2:-1]] == ["| bw-04-fixed"] * 3
    mask = line(lines[4:], "bw-04-fixed")
    assert mask[2:5] == ["nothing", str(Rate(140, 1800)), "-20.0"], "points against the repair with known size"


def test_arms_have_names_in_words() -> None:
    assert tables.label("mesa-beta-0.5") == "retrain, MESA beta 0.5"
    assert tables.label("mesa-7") == "retrain, MESA, 7 x 7 window"
    assert "transparency, 5 x 5 window" in tables.label("pixel-alpha-5")


def test_verdicts_say_when_they_are_wrong() -> None:
    found = Found(
        verdicts=[
            {"case": "a", "verdict": "backdoor", "named": 0, "p_value": 0.0012},
            {"case": "b", "verdict": "backdoor", "named": 3, "p_value": 0.04},
            {"case": "c", "verdict": "nothing found", "named": -1, "p_value": None},
        ]
    )
    a, b, c = tables.verdicts(found, target=0)[2:5]
    assert "| 0 | 0.0012 |" in a and "| 3 (wrong) | 0.04 |" in b and "nothing found | – | – |" in c


def test_searches_are_averaged_over_triggers() -> None:
    rows = [
        {"inversion": "mesa", "lane": 0, "success": 0.5, "entropy": -7.0},
        {"inversion": "mesa", "lane": 0, "success": 1.0, "entropy": -8.0},
        {"inversion": "pixel", "lane": 0, "success": 0.25, "entropy": None},
    ]
    mesa, pixel = tables.searches(Found(inversions=rows))[2:4]
    assert "generator 1 | 2 | 75.0 | 50.0 | -7.5 |" in mesa and "run 1 | 1 | 25.0 | 25.0 | – |" in pixel


def test_the_plane_is_that_of_the_largest_variance() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((300, 2)) * (5, 2)
    turn, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    samples = np.concatenate([flat, 0.01 * rng.standard_normal((300, 4))], axis=1) @ turn + 3
    (seen, same), share = plane(samples, samples[:7])
    assert share > 0.999 and np.array_equal(seen[:7], same)
    distances = [np.linalg.norm(p[0] - p[1]) for p in (flat, seen)]
    assert distances[0] == pytest.approx(distances[1], abs=0.05), "a rotation keeps distances"
    assert seen.std(axis=0)[0] > seen.std(axis=0)[1]
    assert pooled([row("bw-04", "x", 3), row("bw-12", "x", 4)], "asr") == Rate(7, 3600)


def test_a_page_says_when_its_cases_start_from_several_clean_nets() -> None:
    one = [row("bw-04", "clean", 40, right=1756), row("bw-12", "clean", 60, right=1756)]
    plan = make_plan("quick")
    assert "trainings of the clean net" not in page_intro(plan, Found(models=one))
    two = [*one, row("colour-00", "clean", 30, right=1753)]
    assert "They start from 2 trainings of the clean net" in page_intro(plan, Found(models=two))
