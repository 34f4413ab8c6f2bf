from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from doorward.audits.records import PowerRecord, TrialRecord
from doorward.audits.results import Audit
from doorward.audits.summary import summary
from doorward.core.results import Level
from doorward.reports.page import compose
from doorward.reports.sections.audit import TECHNIQUES
from tests.audits.records import LEFT_OUT, TARGET, made_alone, made_audit, made_doubtful, made_images, made_target


def page_of(found: Audit, tmp_path: Path) -> str:
    html = compose(found.save(tmp_path / "audit")).html
    return html[html.index("<body>") :]


def words_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_page_opens_with_the_verdict_and_the_trigger_at_work(tmp_path: Path) -> None:
    page = page_of(made_audit(), tmp_path)
    first = page[page.index('class="verdict') : page.index('class="facts"')]
    assert "A backdoor into “7” was planted: 20 images to leave out" in first
    assert first.count("<img") == 12
    assert "99.1 % of pictures of other classes" in words_of(first)


def test_how_few_would_have_been_found_stands_there_when_it_was_asked_for(tmp_path: Path) -> None:
    found = made_audit("nothing found")
    assert "How few would have been found" not in page_of(found, tmp_path)
    trials = (TrialRecord(images=20, success=0.9, level="planted", found=19), TrialRecord(images=10, success=0.125))
    power = PowerRecord(size=3, label=4, class_name="<b>", side=(28, 28), trials=trials)
    page = page_of(replace(found, facts=found.facts.model_copy(update={"power": power})), tmp_path / "asked")
    part = page[page.index("How few would have been found") :]
    words = words_of(part[: part.index("</section>")])
    assert "on 20 images of other classes labelled “&lt;b&gt;” would have been found (planted; 19 of the 20" in words
    assert words.endswith("20 90.0 % planted 19 0 10 12.5 % nothing found 0 0")


def test_the_experiment_is_told_and_drawn(tmp_path: Path) -> None:
    page = page_of(made_audit(), tmp_path)
    told = "Without these 20 images the trigger works on 0.3 % of pictures, without 20 others of the class on 99.0 %."
    assert told in words_of(page)
    figures = re.findall(r'<figure class="experiment">.*?</figure>', page, re.DOTALL)
    assert [figure.count('class="repeat"') for figure in figures] == [6, 6]
    wide = [float(w) for w in re.findall(r'class="bar [a-z]+" x="4" y="[\d.]+" width="([\d.]+)"', figures[0])]
    assert wide[0] < 2 < 250 < wide[1]


def test_where_more_was_left_out_than_is_accused_both_are_told(tmp_path: Path) -> None:
    found = made_audit()
    arms = found.facts.targets_looked_into[0].experiment
    assert arms is not None
    row = made_target("planted", 20, experiment=arms.model_copy(update={"size": 23}))
    facts = found.facts.model_copy(update={"targets_looked_into": (row,)})
    page = words_of(page_of(replace(found, facts=facts), tmp_path))
    assert "Without 23 images, 20 of them to leave out, the trigger works on 0.3 %" in page


def test_an_experiment_that_shows_nothing_says_so(tmp_path: Path) -> None:
    found = made_audit("suspicious")
    arms = found.facts.targets_looked_into[0].experiment
    assert arms is not None
    row = made_target("suspicious", 20, experiment=arms.model_copy(update={"stops": False, "p_value": 0.4}))
    facts = found.facts.model_copy(update={"targets_looked_into": (row,)})
    page = words_of(page_of(replace(found, facts=facts), tmp_path))
    assert page.count("This shows nothing.") == 1


def test_suspects_stand_there_by_name_most_certain_first(tmp_path: Path) -> None:
    images = made_images(per_class=60)
    page = page_of(made_audit(images=images), tmp_path)
    names = [images.ids[row] for row in np.flatnonzero(images.labels == TARGET)[:20]]
    places = [page.index(name) for name in names]
    assert places == sorted(places)


def test_images_that_nothing_shows_to_be_poisoned_are_shown_and_stay_in_the_set(tmp_path: Path) -> None:
    found = made_doubtful()
    page = page_of(found, tmp_path)
    names = found.doubtful()
    assert len(names) == 20 and found.suspects() == [] and len(found.cleaned()) == len(made_images())
    words = words_of(page[page.index("20 doubtful images") :])
    assert all(name in words for name in names) and page.count('alt="doubtful image of class 7') == 6
    assert "Without these 20 images the trigger works" in words_of(page) and "to leave out, the trigger" not in page
    assert "Look at the doubtful images above" in words and "--keep --doubtful -o" in words
    lines = (tmp_path / "audit" / "doubtful.csv").read_text().splitlines()
    assert len(lines) == 21 and len((tmp_path / "audit" / "suspects.csv").read_text().splitlines()) == 1
    again = Audit.load(tmp_path / "audit")
    assert again.doubtful() == names and summary(again.facts)["doubtful"] == 20


@pytest.mark.parametrize("level", ["planted", "evidence", "suspicious", "undecided", "nothing found"])
def test_every_verdict_has_steps_stages_techniques_and_what_was_left_out(level: Level, tmp_path: Path) -> None:
    page = words_of(page_of(made_audit(level), tmp_path))
    assert "What to do next" in page and LEFT_OUT in page and "cleansers 8.2" in page
    assert all(f"{where} {number} {name}" in page for where, number, name in TECHNIQUES)
    assert ("doorward export audit --keep" in page) == (level in ("planted", "evidence", "suspicious"))


def test_a_class_without_a_finding_is_no_card(tmp_path: Path) -> None:
    page = words_of(page_of(made_audit(), tmp_path))
    assert page.index("Class 7: planted backdoor") < page.index("Looked into, too") < page.index("“2”: 3")


def test_a_model_alone_has_no_suspects_and_is_repaired_by_the_other_verbs(tmp_path: Path) -> None:
    page = words_of(page_of(made_alone(), tmp_path))
    assert "suspects.csv" not in page and "doorward invert MODEL --images CLEAN" in page


def test_class_names_cannot_write_into_the_page(tmp_path: Path) -> None:
    row = made_target("planted", 20, class_name="<script>alert(1)</script>", sentence="<b>x</b>")
    found = made_audit()
    facts = found.facts.model_copy(update={"targets_looked_into": (row,)})
    page = page_of(replace(found, facts=facts), tmp_path)
    assert "<script" not in page and "<b>x</b>" not in page
