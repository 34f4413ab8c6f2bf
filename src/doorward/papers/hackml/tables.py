"""The tables, from collected rows to Markdown; every rate in percent with its Clopper-Pearson interval."""

from __future__ import annotations

from doorward.core.stats import Rate
from doorward.papers.hackml.collect import Found
from doorward.papers.rows import Row, markdown, pick


def rate(row: Row, name: str) -> str:
    """The rate ``name`` of a row; a dash without trials."""
    found = Rate(row[f"{name}_hits"], row[f"{name}_trials"])
    return str(found) if found.trials else "–"


def p_text(value: float | None) -> str:
    """A p-value for people."""
    return "–" if value is None else "< .0001" if value < 1e-4 else f"{value:.4f}"


def scans(found: Found) -> list[str]:
    """Verdict and cost of every scan."""
    rows = [
        [
            r["net"],
            str(r["classes"]),
            r["targets"] or "none",
            r["named"] or "none",
            p_text(r["p_value"]),
            f"{r['seconds']:,.0f}",
            f"{r['passes']:,}",
            f"{r['exhaustive'] / r['passes']:,.0f}",
        ]
        for r in found.scans
    ]
    head = ["net", "classes", "true targets", "named", "p-value of the net", "seconds", "image passes",
            "every class at every window position, times as many"]  # fmt: skip
    return markdown(head, rows) if rows else []


def suspects(found: Found) -> list[str]:
    """True and natural backdoors together, with the evidence for each."""
    rows = [
        [
            r["net"],
            f"**{r['label']}**" if r["true"] else str(r["label"]),
            p_text(r["p_value"]),
            rate(r, "asr"),
            f"{r['size']:.0f}",
            rate(r, "transfer"),
            "–" if r["likeness"] is None else f"{r['likeness']:.2f}",
            r["reading"].rsplit(": ", 1)[-1],
        ]
        for r in found.suspects
    ]
    head = ["net", "class", "p-value", "success on unseen faces %", "size, pixels", "success on a clean net %",
            "likeness", "reading"]  # fmt: skip
    return markdown(head, rows) if rows else []


def places(found: Found) -> list[str]:
    """Where the triggers were found."""
    rows = [
        [
            r["net"],
            r["trigger"],
            f"{r['row']:.0f}, {r['column']:.0f}",
            f"{r['true_row']:.0f}, {r['true_column']:.0f}",
            f"{r['distance']:.1f}",
            f"{r['pixels']} / {r['true_pixels']}",
            f"{r['overlap']:.2f}",
        ]
        for r in found.places
    ]
    head = ["net", "trigger", "heat map's centre", "true centre", "distance, pixels", "pixels found / true",
            "intersection over union"]  # fmt: skip
    return markdown(head, rows) if rows else []


def attacks(found: Found) -> list[str]:
    """Success of the attacks before any defence."""
    rows = [[r["net"], r["trigger"], str(r["target"]), rate(r, "asr")] for r in found.nets]
    return markdown(["net", "trigger", "target", "ASR %"], rows) if rows else []


def repairs(found: Found) -> list[str]:
    """Every arm of every net."""
    rows = []
    for net in dict.fromkeys(r["net"] for r in found.arms):
        for r in pick(found.arms, net=net):
            name = f"*{r['arm']}*" if r["role"] in ("given", "control", "oracle") else f"**{r['arm']}**"
            rows.append([net, name, r["role"], rate(r, "asr"), rate(r, "worst"), rate(r, "accuracy")])
    head = ["net", "arm", "role", "ASR %, all triggers", "ASR %, worst trigger", "accuracy %"]
    return markdown(head, rows) if rows else []


def guards(found: Found) -> list[str]:
    """The contest's form: K + 1 outputs."""
    names = ("clean_accuracy_before", "clean_accuracy", "clean_refused", "stamped_refused")
    rows = [[r["net"], *(rate(r, name) for name in names)] for r in found.guards]
    head = ["net", "accuracy % before", "accuracy % guarded", "clean faces refused %", "stamped faces refused %"]
    return markdown(head, rows) if rows else []


def screens(found: Found) -> list[str]:
    """Single images at test time."""
    rows = []
    for r in found.screens:
        area = "–" if r.get("auroc") is None else f"{r['auroc']:.3f}"
        caught = str(Rate(r["caught"], r["stamped"])) if r.get("stamped") else "–"
        rows.append([r["net"], r["screen"], area, caught, str(Rate(r["refused"], r["clean"]))])
    head = ["net", "screen", "area under the ROC curve", "stamped faces refused %", "clean faces refused %"]
    return markdown(head, rows) if rows else []


def times(found: Found) -> list[str]:
    """How long every stage took."""
    rows = [[r["net"] or "all", r["stage"], f"{r['seconds']:,.0f}"] for r in found.times]
    return markdown(["net", "stage", "seconds"], rows)
