"""The tables, from collected rows to Markdown; every rate with its Clopper-Pearson interval."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from doorward.papers.cluster_impurity.collect import Found
from doorward.papers.cluster_impurity.trainers import TABLE_2
from doorward.papers.rows import Row, markdown, pick, pooled

SHORT = {"impurity": "CI", "activation": "AC", "spectral": "SS", "spectre": "SPECTRE", "scan": "SCAn"}
MODELS = ("poisoned set", "after SS", "after AC", "after CI", "after FP", "poison removed")
# The poster's columns: name, our form and method, and the denominator of its false positive rate in the authors' code.
POSTER = (
    ("SS", "half", "spectral", "fpr_target"),
    ("AC", "declared", "activation", "fpr_target"),
    ("CI", "authors", "impurity", "fpr"),
    ("CI", "poster", "impurity", "fpr"),
    ("CI", "misfits", "impurity", "fpr"),
    ("CI", "blind", "impurity", "fpr"),
    ("CI", "leftovers", "impurity", "fpr"),
)
FORMS = {
    "half": "; half of the class removed",
    "authors": "; all features, S > .5, as in the authors' code",
    "poster": "; all features, S > 1.61",
    "misfits": "; all features, S > 1.61 and misfits of the flagged class",
    "leftovers": "; with misfits and lookalikes",
}


def cases(rows: Sequence[Row], *scenarios: str) -> list[str]:
    """Names of the cases of some scenarios, in order of appearance."""
    return list(dict.fromkeys(r["case"] for r in rows if r["scenario"] in scenarios))


def rate(rows: Sequence[Row], name: str) -> str:
    """Percent with its interval, over all seeds together; behind it the range over seeds when there are several."""
    if not rows:
        return "–"
    whole = pooled(list(rows), name)
    if len(rows) == 1 or not whole.trials:
        return str(whole).replace("-", "–") if not whole.trials else str(whole)
    single = [100 * pooled([r], name).value for r in rows]
    return f"{whole} ({min(single):.1f}–{max(single):.1f})"


def against_the_poster(found: Found) -> list[str]:
    """Table 2 of the poster, cell by cell."""
    head = ["size", "seeds", "SS poster", "SS here", "AC poster", "AC here"]
    head += ["CI poster", "CI, all features, S > .5", "S > 1.61", "with misfits"]
    head += ["CI, 16 components, S > 1.61", "with misfits and lookalikes"]
    rows = []
    for size in sorted({r["size"] for r in found.detections if r["scenario"] == "multiple-source"}):
        cells, seeds = [], 0
        for name, form, method, denominator in POSTER:
            ours = pick(found.detections, scenario="multiple-source", size=size, form=form, method=method)
            published = TABLE_2.get(size, {}).get(name)
            if method != "impurity" or form == "authors":  # other readings of CI have the same poster's cell
                cells.append(f"{published[0]:.3f}, {published[1]:.3f}" if published else "–")
            tpr, fpr = pooled(ours, "tpr").value, pooled(ours, denominator).value
            cells.append(f"{tpr:.3f}, {fpr:.3f}" if ours else "–")
            seeds = max(seeds, len(ours))
        rows.append([f"{size:.2f}", str(seeds), *cells])
    return markdown(head, rows)


def detection(found: Found, *scenarios: str) -> list[str]:
    """Every form of every method: TPR and both FPRs."""
    head = ["case", "method", "told", "seeds", "TPR %", "FPR % of all clean", "FPR % of the target class", "AUROC"]
    rows = []
    for case in cases(found.detections, *scenarios):
        of_case = pick(found.detections, case=case)
        for form, method in dict.fromkeys((r["form"], r["method"]) for r in of_case):
            same = pick(of_case, form=form, method=method)
            told = same[0]["knowledge"].replace("_", " ") or "nothing"
            told += FORMS.get(form, "")
            areas = [r["auroc"] for r in same if r["auroc"] is not None]
            area = f"{mean(areas):.3f}" if areas else "–"
            rates = [rate(same, n) for n in ("tpr", "fpr", "fpr_target")]
            rows.append([case, SHORT[method], told, str(len(same)), *rates, area])
    return markdown(head, rows)


def classifiers(found: Found) -> list[str]:
    """Attack success and clean accuracy before, after each cleansing, and without the poison."""
    head = ["case", "trained on", "seeds", "ASR %", "clean accuracy %", "against the control, points"]
    rows = []
    for case in cases(found.models, "multiple-source", "single-source"):
        of_case = pick(found.models, case=case)
        for model in MODELS:
            same = pick(of_case, model=model)
            if not same:
                continue
            seeds = {r["seed"] for r in same}
            control = [r for r in pick(found.models, model="clean set") if r["seed"] in seeds]
            lost = 100 * (pooled(same, "accuracy").value - pooled(control, "accuracy").value) if control else None
            told = "–" if lost is None else f"{lost:+.2f}"
            name = "poison removed (control)" if model == "poison removed" else model
            rows.append([case, name, str(len(same)), rate(same, "asr"), rate(same, "accuracy"), told])
    return markdown(head, rows)


def control(found: Found) -> list[str]:
    """What is flagged where nothing is poisoned."""
    rows, clean = [], pick(found.detections, scenario="control")
    for form, method in dict.fromkeys((r["form"], r["method"]) for r in clean):
        same = pick(clean, form=form, method=method)
        flagged = ", ".join(f"{r['flagged']:,}" for r in same)
        rows.append([SHORT[method] + FORMS.get(form, ""), str(len(same)), flagged, rate(same, "fpr")])
    return markdown(["method, told nothing", "seeds", "images flagged, by seed", "FPR %"], rows)


def beyond(found: Found) -> list[str]:
    """Other attacks: what each method finds, told nothing, and why cluster impurity does or does not."""
    methods = [m for m in SHORT if pick(found.detections, scenario="beyond", method=m, form="blind")]
    head = ["attack", "ASR %", *(f"{SHORT[m]} TPR / FPR %" for m in methods)]
    head += ["poison in clusters of its own %", "S there"]
    rows = []
    for case in cases(found.detections, "beyond"):
        cells = [case.removeprefix("beyond-"), rate(pick(found.models, case=case, model="poisoned set"), "asr")]
        for method in methods:
            same = pick(found.detections, case=case, method=method, form="blind")
            cells.append(f"{rate(same, 'tpr')} / {100 * pooled(same, 'fpr').value:.2f}")
        of_case = pick(found.clusters, case=case)
        gathered, poisoned = (sum(r[n] for r in of_case) for n in ("gathered", "poisoned"))
        impurities = [r["impurity"] for r in of_case if r["impurity"] is not None]
        cells.append(f"{100 * gathered / poisoned:.1f}" if poisoned else "–")
        cells.append(f"{mean(impurities):.2f}" if impurities else "–")
        rows.append(cells)
    return markdown(head, rows)


def times(found: Found) -> list[str]:
    """How often each stage ran and how long it took."""
    rows = []
    for stage in dict.fromkeys(r["stage"] for r in found.times):
        same = pick(found.times, stage=stage)
        seconds = [r["seconds"] for r in same]
        speeds = [r["images_per_second"] for r in same if r["images_per_second"]]
        speed = f"{mean(speeds):,.0f}" if speeds else "–"
        rows.append([stage, str(len(same)), f"{mean(seconds):,.0f}", f"{sum(seconds) / 3600:.2f}", speed])
    methods = dict.fromkeys(r["method"] for r in pick(found.detections, form="blind"))
    for method in methods:
        seconds = [r["seconds"] for r in pick(found.detections, form="blind", method=method)]
        rows.append([f"of it {SHORT[method]}, told nothing", str(len(seconds)), f"{mean(seconds):,.1f}", "", "–"])
    return markdown(["stage", "runs", "mean seconds", "hours in all", "images/s"], rows)
