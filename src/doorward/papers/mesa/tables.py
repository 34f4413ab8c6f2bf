"""The tables, from collected rows to Markdown; every rate with its Clopper-Pearson interval."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from doorward.core.stats import Rate
from doorward.papers.mesa.arms import BEFORE, PEERS
from doorward.papers.mesa.collect import Found
from doorward.papers.mesa.profiles import PUBLISHED, Read
from doorward.papers.rows import Row, markdown, pick, pooled

LABELS = {
    "clean": "net before the attack",
    BEFORE: "backdoored net",
    "oracle": "retrain, true trigger",
    "mesa-ensemble": "retrain, MESA ensemble",
    "pixel-short": "retrain, pixel baseline, the authors' 31 steps",
    "pixel": "retrain, pixel baseline, 200 steps",
    "fine-tune": "control: fine-tune",
    "refresh": "control: refresh batch norm",
    "mesa-default": "retrain as `doorward repair` does, MESA ensemble",
    "pixel-default": "retrain as `doorward repair` does, pixel baseline, best run",
    "unlearn": "unlearn, pixel baseline, best run",
    "ibau": "adversarial unlearning (I-BAU)",
    "prune": "fine-pruning",
    "mesa-unknown": "retrain, MESA, class from the verdict of `mask`",
    "mask": "retrain, the mask of the verdict's class",
    "mask-default": "retrain as `doorward repair` does, the mask of the verdict's class",
}
_CONTROLS = ("fine-tune", "refresh")
_DEFAULTS = ("mesa-default", "pixel-default")
BASELINE = "pixel-short"  # the one with the authors' budget


def label(arm: str) -> str:
    """The arm in words."""
    if arm in LABELS:
        return LABELS[arm]
    kind, *rest = arm.split("-")
    if rest[0] == "beta":
        return f"retrain, MESA beta {rest[1]}"
    window = f"{rest[-1]} x {rest[-1]} window"
    clear = " with transparency" if rest[0] == "alpha" else ""
    return f"retrain, MESA{clear}, {window}" if kind == "mesa" else f"retrain, pixel{clear}, {window}, best run"


def main_arms(found: Found) -> list[str]:
    """Arms of the slides and the controls, in the order of the tables."""
    rows = [r["arm"] for r in found.models if r["place"] == "free"]
    levels = sorted({a for a in rows if a.startswith("mesa-beta")}, reverse=True)
    order = ["clean", BEFORE, "oracle", *levels, "mesa-ensemble", BASELINE, "pixel", *_CONTROLS, *_DEFAULTS, *PEERS]
    return [arm for arm in order if arm in rows]


def by_case(rows: Sequence[Row], name: str = "asr") -> dict[str, Rate]:
    """The rate of every case; the runs of one case together."""
    cases = dict.fromkeys(r["case"] for r in rows)
    return {case: pooled(pick(rows, case=case), name) for case in cases}


def free(found: Found, kind: str, arm: str) -> list[Row]:
    """Rows of an arm over the freely placed triggers of a kind."""
    return pick(found.models, kind=kind, place="free", arm=arm)


def summary(found: Found, kind: str, published: Read = PUBLISHED) -> list[str]:
    """Mean and worst over the triggers of a kind, the authors' beside ours, clean accuracy and what it lost."""
    head = [
        "arm",
        "told",
        "triggers",
        "ASR %, mean",
        "authors",
        "worst trigger",
        "authors",
        "clean accuracy %",
        "change",
    ]
    rows = []
    for arm in main_arms(found):
        same = free(found, kind, arm)
        if same:
            rows.append(_summary_row(found, kind, arm, same, published[kind].get(arm)))
            if arm in (BASELINE, "pixel") and len({r["rank"] for r in same}) > 1:
                rows.append(_worst_runs(same))
    return markdown(head, rows) if rows else []


def _summary_row(
    found: Found, kind: str, arm: str, same: list[Row], published: tuple[float, float | None] | None
) -> list[str]:
    cases = by_case(same)
    lowest = arm == BEFORE  # an attack is at its worst where it succeeds least
    worst = (min if lowest else max)(cases, key=lambda case: cases[case].value)
    theirs = [_number(published[0]), _number(published[1])] if published else ["–", "–"]
    accuracy = pooled(same, "accuracy")
    given = [r for r in free(found, kind, BEFORE) if r["case"] in cases]
    lost = "–" if arm == BEFORE else f"{100 * (accuracy.value - pooled(given, 'accuracy').value):+.2f}"
    told = same[0]["told"] or "nothing"
    words = f"{'lowest: ' if lowest else ''}{cases[worst]} ({worst})"
    name = f"**{label(arm)}**" if arm == "mesa-ensemble" else label(arm)
    return [name, told, str(len(cases)), str(pooled(same, "asr")), theirs[0], words, theirs[1], str(accuracy), lost]


def _worst_runs(same: list[Row]) -> list[str]:
    """The pixel baseline again, each trigger with its worst run alone."""
    worst = [max(pick(same, case=case), key=lambda r: r["asr_hits"] / r["asr_trials"]) for case in by_case(same)]
    most = max(worst, key=lambda r: r["asr_hits"] / r["asr_trials"])
    words = f"{pooled([most], 'asr')} ({most['case']})"
    return ["… the worst run of each trigger", same[0]["told"], str(len(worst)), str(pooled(worst, "asr")), "–", words,
            "–", str(pooled(worst, "accuracy")), ""]  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def ratio(found: Found, kind: str, published: Read = PUBLISHED) -> str:
    """How many times the pixel baseline's mean ASR is the ensemble's."""
    baseline, ensemble = (pooled(free(found, kind, arm), "asr") for arm in (BASELINE, "mesa-ensemble"))
    if not baseline.trials or not ensemble.trials:
        return ""
    read = published[kind]
    theirs = f"; the authors {read[BASELINE][0] / read['mesa-ensemble'][0]:.1f}" if BASELINE in read else ""
    ours = f"{baseline.value / ensemble.value:.1f}" if ensemble.hits else "infinitely many"
    return (
        f"Pixel baseline's mean over the ensemble's, {kind}: {ours} ({100 * baseline.value:.2f} / "
        f"{100 * ensemble.value:.2f} %){theirs}."
    )


def each_trigger(found: Found) -> list[str]:
    """ASR of every trigger after every arm; the range over runs behind the baseline's."""
    shown = [arm for arm in main_arms(found) if arm != "clean"]
    rows = []
    for case in dict.fromkeys(r["case"] for r in found.models if r["place"] == "free"):
        of_case = pick(found.models, case=case)
        rows.append([case, *(_cell(pick(of_case, arm=arm)) for arm in shown)])
    return markdown(["trigger", *(label(arm).replace("retrain, ", "") for arm in shown)], rows)


def _cell(same: list[Row]) -> str:
    if not same:
        return "–"
    single = [100 * r["asr_hits"] / r["asr_trials"] for r in same]
    spread = f" ({min(single):.1f}–{max(single):.1f})" if len(single) > 1 else ""
    return f"{pooled(same, 'asr')}{spread}"


def without_crutches(found: Found) -> list[str]:
    """Repairs that are told less, beside the same trigger's repair with known size; then the fixed place."""
    extra = {r["case"] for r in found.models if r["arm"] in ("mesa-unknown", "mask")}
    rows = []
    for case in dict.fromkeys(r["case"] for r in found.models if r["case"] in extra):
        of_case = pick(found.models, case=case)
        known = by_case(pick(of_case, arm="mesa-ensemble"))
        for arm in dict.fromkeys(r["arm"] for r in of_case):
            if arm == "clean" or arm.startswith("mesa-beta"):
                continue
            same = pick(of_case, arm=arm)
            lost = ""
            if arm not in (BEFORE, "mesa-ensemble") and case in known:
                lost = f"{100 * (pooled(same, 'asr').value - known[case].value):+.1f}"
            told = same[0]["told"] or "nothing"
            rows.append([case, label(arm), told, _cell(same), lost, str(pooled(same, "accuracy"))])
    head = ["trigger", "arm", "told", "ASR %", "against known size, points", "clean accuracy %"]
    return markdown(head, rows) if rows else []


def verdicts(found: Found, target: int) -> list[str]:
    """What the mask's search of all classes said, told nothing."""
    rows = []
    for row in found.verdicts:
        named = "–" if row["named"] < 0 else f"{row['named']}" + ("" if row["named"] == target else " (wrong)")
        p_value = "–" if row["p_value"] is None else f"{row['p_value']:.2g}"
        rows.append([row["case"], row["verdict"], named, p_value])
    return markdown(["trigger", "verdict of `mask`", f"class named (target {target})", "p-value"], rows) if rows else []


def searches(found: Found) -> list[str]:
    """How well the defence's own triggers succeed on the images that they were made on."""
    rows = []
    for name, lane in dict.fromkeys((r["inversion"], r["lane"]) for r in found.inversions):
        same = pick(found.inversions, inversion=name, lane=lane)
        rates = [100 * r["success"] for r in same]
        nats = [r["entropy"] for r in same if r["entropy"] is not None]
        kind = "generator" if nats else "run"
        entropy = f"{mean(nats):.1f}" if nats else "–"
        rows.append([name, f"{kind} {lane + 1}", str(len(same)), f"{mean(rates):.1f}", f"{min(rates):.1f}", entropy])
    head = ["search", "", "triggers", "success of its own triggers %, mean", "lowest", "entropy, nats"]
    return markdown(head, rows) if rows else []


def times(found: Found) -> list[str]:
    """How long each kind of stage took."""
    rows = []
    for kind in dict.fromkeys(r["kind"] for r in found.times):
        seconds = [r["seconds"] for r in pick(found.times, kind=kind)]
        rows.append([kind, str(len(seconds)), f"{mean(seconds):,.0f}", f"{sum(seconds) / 3600:.2f}"])
    return markdown(["stage", "runs", "mean seconds", "hours in all, one process"], rows)
