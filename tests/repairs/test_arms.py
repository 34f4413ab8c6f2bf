"""Arms side by side: budgets, roles, the same unseen images for all, doubts in words, triggers of an inversion run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.results import RateRecord
from doorward.core.stats import Paired, Rate
from doorward.core.triggers import Placement, Trigger
from doorward.inversion.results import Inversion
from doorward.inversion.triggers import load_inverted
from doorward.repairs.arms import Planned, Role, default_methods, plan_arms, wants_all
from doorward.repairs.doubts import doubts
from doorward.repairs.repair import repair
from doorward.repairs.results import ArmRecord, CostRecord, Repair
from doorward.repairs.verdict import NOT_THE_ATTACKERS, TRAINED_AGAINST, judge
from doorward.scoring.repairs import score_arms
from tests.inversion.records import target, write_inversion
from tests.repairs.world import TARGET, World

QUICK: dict[str, Any] = {"epochs": 2, "precision": "fp32", "around": False}
TUNING: dict[str, Any] = {"epochs": 2, "precision": "fp32"}


def dot(value: float = 1.0) -> Trigger:
    return Trigger(torch.full((1, 1, 1), value), torch.ones(1, 1, 1), Placement("fixed", 1, 1))


def by_name(arms: tuple[Planned, ...]) -> dict[str, Planned]:
    return {arm.name: arm for arm in arms}


def test_controls_have_the_budget_of_the_methods_beside_them() -> None:
    settings = {"retrain": {"epochs": 3, "lr": 0.02, "batch": 64, "share": 0.5}, "unlearn": {"epochs": 3}}
    triggers = {TARGET: [dot()]}
    arms = by_name(plan_arms(["retrain", "unlearn"], triggers=triggers, settings=settings, oracle=triggers))
    assert list(arms) == ["retrain", "unlearn", "fine-tune", "fine-tune-unlearn", "refresh", "oracle"]
    told = arms["fine-tune"].settings
    assert (told["epochs"], told["lr"], told["batch"], told["momentum"]) == (3, 0.02, 64, 0.9)
    assert "share" not in told and arms["fine-tune-unlearn"].settings["lr"] != 0.02
    assert all(arm.settings["held_out"] == 0 for arm in arms.values()), "the comparison holds out its own images"
    assert [arm.role for arm in arms.values()] == ["repair"] * 2 + ["control"] * 3 + ["oracle"]
    assert arms["oracle"].method == "retrain" and arms["oracle"].settings["share"] == 0.5
    assert arms["refresh"].triggers is None and arms["retrain"].triggers is triggers
    same = {"retrain": {"epochs": 3}, "unlearn": {"epochs": 3}, "fine-tune": {"lr": 0.5}}
    arms = by_name(plan_arms(["retrain", "unlearn"], triggers=triggers, settings=same))
    assert list(arms) == ["retrain", "unlearn", "fine-tune", "refresh"] and arms["fine-tune"].settings["lr"] == 0.5
    assert by_name(plan_arms(["ibau"]))["fine-tune"].settings == {"held_out": 0.0}, "no budget to copy: the defaults"
    pruned = by_name(plan_arms(["prune"], settings={"prune": {"epochs": 7, "batch": 32}}))
    assert (pruned["fine-tune"].settings["epochs"], pruned["fine-tune"].settings["batch"]) == (7, 32)
    assert "held_out" not in pruned["prune"].settings, "pruning decides on images of its own"
    assert [a.name for a in plan_arms(["fine-tune", "refresh"])] == ["fine-tune", "refresh"], "not twice"
    assert [a.name for a in plan_arms(["ibau"], controls=False)] == ["ibau"]
    (oracle,) = (a for a in plan_arms(["ibau"], oracle=triggers) if a.role == "oracle")
    assert oracle.settings["around"] is False, "it is told the trigger itself"


def test_plans_that_cannot_be_run_are_refused() -> None:
    with pytest.raises(
        DoorwardError, match="settings for 'retrain', which is not run; expected one of fine-tune, ibau, refresh"
    ):
        plan_arms(["ibau"], settings={"retrain": {"epochs": 1}})
    with pytest.raises(DoorwardError, match="repair unlearn: needs triggers, which were not given"):
        plan_arms(["unlearn"])
    with pytest.raises(DoorwardError, match="repair: no method; expected at least one of"):
        plan_arms([])
    with pytest.raises(DoorwardError, match="repair: no method 'polish'"):
        plan_arms(["polish"])
    with pytest.raises(DoorwardError, match="repair retrain: setting 'share' = 7"):
        plan_arms(["retrain"], triggers={0: [dot()]}, settings={"retrain": {"share": 7}})


def test_all_arms_are_measured_on_images_that_none_saw(world: World) -> None:
    told: list[tuple[str, int, int]] = []
    found = repair(
        world.classifier,
        world.clean,
        world.triggers,
        "retrain",
        oracle=world.triggers,
        settings={"retrain": QUICK},
        held_out=0.25,
        proof=False,
        seed=1,
        progress=lambda *step: told.append(step),
    )
    arms = found.arms
    assert [arm.planned.name for arm in arms] == ["as given", "retrain", "fine-tune", "refresh", "oracle"]
    assert told == [("retrain", 0, 4), ("fine-tune", 1, 4), ("refresh", 2, 4), ("oracle", 3, 4)]
    given, retrained, tuned, _, oracle = arms
    assert given.repaired.classifier is world.classifier
    assert {arm.accuracy.trials for arm in arms} == {100}
    assert all(arm.repaired.details["fitted_images"] == 300 for arm in arms[1:])
    assert given.success[TARGET].value > 0.9 and retrained.success[TARGET].value < 0.1 < tuned.success[TARGET].value
    assert given.success[TARGET].trials == int((world.clean.split(0.25, 1)[1].labels != TARGET).sum())
    weights = zip(
        retrained.repaired.classifier.net.parameters(), oracle.repaired.classifier.net.parameters(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in weights), "here the inverted trigger is the true one"
    row = found.record.first
    assert row.settings["share"] == 0.2 and row.knowledge == ("clean_images",) and row.role == "repair"
    assert row.asr is not None and row.asr.hits == retrained.success[TARGET].hits
    assert found.record.given.settings == {} and row.folder == "." and row.proof is None
    assert found.verdict == "undecided", "without a proof the triggers that it trained against show nothing"
    assert TRAINED_AGAINST in found.record.judgement.reasons[-1]
    assert found.classifier is retrained.repaired.classifier
    scored = score_arms({a.planned.name: a.repaired.classifier for a in arms[:2]}, world.test, world.attack)
    assert [r.name for r in scored] == ["as given", "retrain"]
    assert scored[0].asr.rate().value > 0.95 > 0.1 > scored[1].asr.rate().value
    assert score_arms({"x": world.classifier}, world.test, None)[0].asr.value is None


def row(
    name: str, role: Role, asr: tuple[int, int] | None, accuracy: int = 980, warnings: tuple[str, ...] = ()
) -> ArmRecord:
    rate = None if asr is None else RateRecord.of(Rate(*asr))
    right, given = RateRecord.of(Rate(accuracy, 1000)), ("triggers",) if name == "retrain" else ()
    targets = {} if rate is None else {0: rate}
    return ArmRecord(
        name=name, role=role, method=name, accuracy=right, asr=rate, targets=targets, warnings=warnings, given=given
    )


def test_the_verdict_is_about_the_first_repair() -> None:
    before, tuned = row("as given", "given", (930, 1000)), row("fine-tune", "control", (900, 1000))
    for hits, level in ((80, "undecided"), (400, "not repaired")):
        judgement, findings = judge((before, tuned, row("retrain", "repair", (hits, 1000))), "ab")
        assert judgement.level == level and TRAINED_AGAINST in judgement.reasons[-1]
        assert judgement.targets == (("a",) if hits == 400 else ()) == tuple(f.class_name for f in findings)
    assert findings[0].sentence == "After retrain: The triggers into “a” themselves still succeed on 40.0 %."
    judgement, findings = judge((before, row("ibau", "repair", (10, 1000))), "ab")
    assert NOT_THE_ATTACKERS in judgement.reasons[-1] and not findings
    judgement, findings = judge((row("as given", "given", None), row("ibau", "repair", None)), "ab")
    assert judgement.level == "undecided" and not findings


def test_a_repair_is_the_same_after_the_disk(world: World, tmp_path: Path) -> None:
    options = {"methods": "retrain", "settings": {"retrain": QUICK}, "proof": False, "seed": 1}
    found = repair(world.classifier, world.clean, world.triggers, **options)  # type: ignore[arg-type]
    again = Repair.load(found.save(tmp_path / "run"))
    assert again.record == found.record and again.rows() == found.rows() and not again.arms
    assert sorted(p.name for p in (tmp_path / "run" / "arms").iterdir()) == ["fine-tune", "refresh"]
    copy = Repair.load(again.save(tmp_path / "copy"))
    for name in ("retrain", "fine-tune", "refresh"):
        nets = [one.classifier_of(name).net.state_dict() for one in (found, again, copy)]
        assert all(torch.equal(nets[0][k], other[k]) for other in nets[1:] for k in nets[0])
    pages = [one.report(tmp_path / f"{i}.html").read_text() for i, one in enumerate((found, again))]
    assert len({re.sub(r"[0-9.]+ s<", "", page) for page in pages}) == 1, "but for the time that saving took"
    assert "Before and after, all arms" in pages[0]
    with pytest.raises(DoorwardError, match="does not keep the classifier as it was given"):
        again.classifier_of("as given")
    with pytest.raises(DoorwardError, match="no arm 'polish'; expected one of as given, retrain"):
        found.classifier_of("polish")


def test_triggers_come_in_memory_and_from_a_folder(world: World, tmp_path: Path) -> None:
    names, kept = world.clean.classes, {f"mask_{TARGET}_0.safetensors": world.triggers[TARGET][0]}
    run = write_inversion(tmp_path / "run", names, {"mask": {TARGET: 0.9}}, [target(names, TARGET)], [kept])  # type: ignore[list-item]
    options = {"methods": "retrain", "settings": {"retrain": QUICK}, "controls": False, "proof": False}
    given = [run, str(run), Inversion.load(run), world.triggers]
    found = [repair(world.classifier, world.clean, triggers, **options) for triggers in given]  # type: ignore[arg-type]
    weights = [one.classifier.net.state_dict() for one in found]
    assert all(torch.equal(weights[0][k], other[k]) for other in weights[1:] for k in weights[0])
    used = [one.record.triggers for one in found]
    assert [(u.run, u.targets[0].method) for u in used if u is not None] == [
        (str(run), "mask"), (str(run), "mask"), ("", "mask"), ("", "given")
    ]  # fmt: skip
    with pytest.raises(DoorwardError, match="triggers for class 77"):
        repair(world.classifier, world.clean, {77: world.triggers[TARGET]})
    with pytest.raises(DoorwardError, match="knowledge 'shoe_size'"):
        repair(world.classifier, world.clean, methods="refresh", knowledge={"shoe_size": 43})


def test_doubts_in_words() -> None:
    before, good = row("as given", "given", (930, 1000)), row("retrain", "repair", (10, 1000))
    assert doubts([before, good, row("fine-tune", "control", (900, 1000))]) == ()
    (told,) = doubts([before, good, row("fine-tune", "control", (14, 1000)), row("refresh", "control", (925, 1000))])
    assert told.startswith("fine-tune alone lowers the triggers' success as far as retrain")
    (told,) = doubts([before, row("retrain", "repair", (400, 1000)), row("refresh", "control", (930, 1000))])
    assert told == "after retrain the triggers still succeed on 40.0 [36.9, 43.1] % of held-out images"
    (told,) = doubts([row("as given", "given", (100, 1000)), good])
    assert "before any repair: there is little to take out" in told
    (told,) = doubts([row("as given", "given", None), row("ibau", "repair", None, warnings=())])
    assert told == "without triggers nothing here tells whether a backdoor was there or is gone"
    found = doubts([before, good, row("refresh", "control", (930, 1000), warnings=("no batch norm",))])
    assert found == ("refresh: no batch norm",)


def test_accuracy_within_the_noise_of_few_images_is_no_cost() -> None:
    before = row("as given", "given", (930, 1000))

    def told(lost: int, gained: int, trials: int) -> tuple[str, ...]:
        after = row("retrain", "repair", (10, 1000), accuracy=980)
        return doubts([before, after.model_copy(update={"cost": CostRecord.of(Paired(lost, gained, trials))})])

    assert told(5, 0, 100) == told(12, 7, 100) == told(0, 30, 100) == (), "5 points may be chance on 100 images"
    (said,) = told(11, 1, 100)
    low, high = Paired(11, 1, 100).interval
    assert said.startswith(f"retrain costs clean accuracy: 10.0 [{100 * low:.1f}, {100 * high:.1f}] points on the same")
    assert told(600, 500, 20_000), "half a point is seen on enough images"


def test_the_cost_is_counted_image_by_image(world: World) -> None:
    found = repair(world.classifier, world.clean, methods="fine-tune", settings={"fine-tune": TUNING}, controls=False)
    given, tuned = found.arms
    held = world.clean.split(0.2, 0)[1]
    knew, knows = (a.repaired.classifier.predict(held.pixels) == held.labels for a in (given, tuned))
    cost = found.record.first.cost
    assert cost is not None and found.record.given.cost is None
    assert (cost.lost, cost.gained) == (int((knew & ~knows).sum()), int((knows & ~knew).sum()))
    assert cost.value == pytest.approx(given.accuracy.value - tuned.accuracy.value) and cost.trials == len(held)


def inversion(folder: Path, labels: tuple[int, ...], rounds: bool = False) -> Path:
    """Triggers of two methods for two of three classes."""
    kept = [
        {f"{name}_{k}_0.safetensors": dot((number + k) / 4) for name, k in (("mask", 0), ("mask", 1), ("pixel", 1))}
        for number in range(2 if rounds else 1)
    ]
    targets = [target("abc", k) for k in labels]
    success = {"mask": {0: 0.5, 1: 0.5}, "pixel": {1: 0.9}, "margin": {}}
    return write_inversion(folder, "abc", success, targets, kept, [targets[:1], targets] if rounds else ())


def test_triggers_come_from_the_verdict_or_from_the_class_that_is_named(tmp_path: Path) -> None:
    found = inversion(tmp_path / "found", (1, 0))
    told = load_inverted(found, "abc")
    assert told.methods == {1: ("mask",), 0: ("mask",)} and [len(s) for s in told.stamps.values()] == [1, 1]
    assert load_inverted(found, "abc", targets=["b"]).methods == {1: ("mask",)}, "the verdict's own method"
    assert load_inverted(found, "abc", targets=["1"], method="pixel").methods == {1: ("pixel",)}
    silent = inversion(tmp_path / "silent", ())
    assert load_inverted(silent, "abc", targets=["b"]).methods == {1: ("pixel",)}, "the most successful"
    rounds = load_inverted(inversion(tmp_path / "rounds", (1, 0), rounds=True), "abc")
    assert [float(s.pattern.mean()) for s in rounds.stamps[1]] == [0.25, 0.5], "of every round that found it"  # type: ignore[attr-defined]
    assert [float(s.pattern.mean()) for s in rounds.stamps[0]] == [0.25], "round 1 found another class"  # type: ignore[attr-defined]


def test_an_inversion_that_accuses_nobody_leaves_the_model_as_it_is(tmp_path: Path, world: World) -> None:
    names, classifier = world.clean.classes, world.classifier
    kept = [{"mask_0_0.safetensors": world.trigger}]
    silent, doubtful = (
        write_inversion(tmp_path / name, names, {"mask": {0: 0.9}}, [], kept, decided=decided)  # type: ignore[arg-type]
        for name, decided in (("silent", True), ("doubtful", False))
    )
    for given in (silent, Inversion.load(silent)):
        done = repair(classifier, world.clean, given)
        assert done.verdict == "nothing found" and done.targets == () and "accuses no class" in repr(done)
        assert done.classifier is classifier and [a.planned.name for a in done.arms] == ["as given"]
        assert done.rows()[0]["accuracy"] == pytest.approx(done.record.first.accuracy.value)
    again = Repair.load(done.save(tmp_path / "done"))
    state = again.classifier.net.state_dict()
    assert all(torch.equal(state[name], value) for name, value in classifier.net.state_dict().items())
    for given in (doubtful, Inversion.load(doubtful)):
        with pytest.raises(DoorwardError, match="found no target class; expected one to be named with --target CLASS"):
            repair(classifier, world.clean, given)
    with pytest.raises(DoorwardError, match="inverted a model of 10 classes; this one has 3"):
        load_inverted(silent, "abc", or_none=True)
    assert load_inverted(silent, names, targets=["0"], or_none=True).stamps.keys() == {0}


def test_a_repair_that_draws_around_triggers_takes_those_of_all_inversions(tmp_path: Path) -> None:
    run = inversion(tmp_path / "run", (1,))
    assert load_inverted(run, "abc").accused == (1,) and load_inverted(run, "abc", targets=["a"]).accused == ()
    one, every = (load_inverted(run, "abc", all_methods=k) for k in (False, True))
    assert one.methods == {1: ("mask",)} and len(one.stamps[1]) == 1
    assert every.methods == {1: ("mask", "pixel")} and len(every.stamps[1]) == 2, "the surest one's first"
    assert load_inverted(run, "abc", targets=["a"], all_methods=True).methods == {0: ("mask",)}
    named = load_inverted(run, "abc", method="pixel", all_methods=True)
    assert named.methods == {1: ("pixel",)}, "what is named decides"
    assert wants_all(("hold",), {}) and wants_all(("retrain",), {}) and not wants_all(("unlearn", "prune"), {})
    assert not wants_all(("retrain",), {"retrain": {"around": False}}) and default_methods(True) == ("hold",)


def test_a_distribution_is_taken_before_single_triggers(tmp_path: Path) -> None:
    from doorward.inversion.distribution.generators import make_generators
    from doorward.inversion.distribution.triggers import TriggerDistribution

    run = inversion(tmp_path / "run", (1,))
    net = make_generators(1, 8, 1, 4, torch.Generator().manual_seed(0))
    for layer in range(3):
        net |= {f"g_{layer}_mean": torch.zeros(1, 1, 4), f"g_{layer}_deviation": torch.ones(1, 1, 4)}
    TriggerDistribution(net, (1, 1, 1), (0.9,), (1.0,), (0.0,)).save(run / "triggers/mask_1_distribution.safetensors")
    manifest = read_json(run / "run.json")
    manifest["results"]["methods"]["mask"]["triggers"]["1"].append("mask_1_distribution.safetensors")
    write_json(run / "run.json", manifest)
    told = load_inverted(run, "abc")
    assert told.methods == {1: ("mask",)}, "though single pixel triggers are more successful"
    assert len(told.stamps[1]) == 1 and isinstance(told.stamps[1][0], TriggerDistribution)
    assert load_inverted(run, "abc", method="pixel").methods == {1: ("pixel",)}


def test_runs_without_a_target_and_wrong_classes_are_one_line(tmp_path: Path) -> None:
    run = inversion(tmp_path / "run", ())
    with pytest.raises(DoorwardError, match="found no target class; expected one to be named with --target CLASS"):
        load_inverted(run, "abc")
    with pytest.raises(DoorwardError, match="--target 'z'; expected one of a, b, c"):
        load_inverted(run, "abc", targets=["z"])
    with pytest.raises(DoorwardError, match="inverted a model of 3 classes; this one has 2"):
        load_inverted(run, "ab")
    with pytest.raises(DoorwardError, match="keeps no trigger for class c"):
        load_inverted(run, "abc", targets=["c"])
    with pytest.raises(DoorwardError, match="has no triggers of 'mesa'; expected one of mask, pixel, margin"):
        load_inverted(run, "abc", targets=["a"], method="mesa")
    broken = inversion(tmp_path / "broken", (1,))
    manifest = read_json(broken / "run.json")
    del manifest["results"]["targets"][0]["method"]
    write_json(broken / "run.json", manifest)
    with pytest.raises(DoorwardError, match="targets.0.method.*expected a run of this version of doorward"):
        load_inverted(broken, "abc")
