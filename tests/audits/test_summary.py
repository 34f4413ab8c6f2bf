from __future__ import annotations

import json

from doorward.audits.records import PowerRecord, TrialRecord
from doorward.audits.summary import accused, summary
from doorward.audits.verdict import speaking
from tests.audits.records import LEFT_OUT, made_audit, made_target


def test_the_summary_has_exactly_these_keys_and_only_accused_classes() -> None:
    told = summary(made_audit().facts)
    assert list(told) == ["verdict", "p_value", "targets", "suspects", "stages", "left_out"]
    row = {"class": "7", "label": 7, "p_value": 0.0009, "suspects": 20, "trigger": "triggers/7.safetensors"}
    assert told["targets"] == [row]
    assert (told["verdict"], told["p_value"], told["suspects"]) == ("planted", 0.0009, 20)
    assert told["stages"][0] == {"name": "train", "seconds": 12.5} and told["left_out"] == [LEFT_OUT]
    json.dumps(told, allow_nan=False)


def test_what_would_have_been_found_is_told_in_numbers() -> None:
    trials = (TrialRecord(images=20, success=0.9, level="planted", found=20), TrialRecord(images=10, success=0.1))
    power = PowerRecord(size=3, label=4, class_name="cat", side=(28, 28), trials=trials)
    told = summary(made_audit("nothing found").facts.model_copy(update={"power": power}))["power"]
    assert (told["trigger"], told["class"], told["label"], told["smallest"]) == ("patch of 3 x 3 pixels", "cat", 4, 20)
    assert [trial["images"] for trial in told["trials"]] == [20, 10]
    json.dumps(told, allow_nan=False)


def test_an_undecided_audit_accuses_nobody() -> None:
    rows = (made_target("suspicious", 5),)
    facts = made_audit("undecided").facts.model_copy(update={"targets_looked_into": rows})
    assert accused(facts) == () and summary(facts)["targets"] == []


def test_nothing_found_accuses_nobody() -> None:
    told = summary(made_audit("nothing found").facts)
    assert (told["verdict"], told["targets"], told["suspects"]) == ("nothing found", [], 0)


def test_a_class_of_two_rounds_is_one_with_the_suspects_of_both() -> None:
    rows = (
        made_target("suspicious", 5, round=2, trigger="t"),
        made_target("planted", 20, trigger=""),
        made_target("evidence", 3, label=1),
        made_target("suspicious", 0, label=2),  # no more than a doubt beside a backdoor
    )
    facts = made_audit().facts.model_copy(update={"targets_looked_into": rows})
    assert [(t.label, t.level, t.suspects, t.trigger) for t in accused(facts)] == [
        (7, "planted", 25, "t"),
        (1, "evidence", 3, "triggers/7.safetensors"),
    ]


def test_where_all_are_suspicious_all_are_named() -> None:
    rows = [made_target("suspicious", 5), made_target("suspicious", 0, label=2)]
    assert speaking(rows) == rows and speaking([*rows, made_target("nothing found", 0, label=3)]) == rows
