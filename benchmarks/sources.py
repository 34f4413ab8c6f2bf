"""The page of everything that the three sources publish, ours beside it; measures nothing, reads results/ alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from benchmarks.published import Line, hackml, mesa, other_forms, poster, smoothing, table_2
from benchmarks.table import RESULTS
from doorward.core.files import atomic_write
from doorward.papers.rows import markdown

STATES = ("reached", "missed", "not run", "not comparable")
NOT_THE_SOURCES = ("pixel", "fine-tune", "refresh", "mesa-default", "pixel-default", "unlearn", "ibau", "prune")

INTRO = """# The three sources, number by number

Every number that the three sources publish, ours beside it, and a state:

* `reached`: ours, rounded as theirs is, is at least as good; a setting is the same.
* `missed by X`: ours is worse by X. "Inside the interval": theirs lies within our interval.
* `not run (cost)`: the code can do it and nobody did here. The cost is that of a dry run, unless said.
* `not comparable (why)`: mostly, nothing is printed that one could compare with.

Better is: more true and fewer false positives, more accuracy, a stronger attack before a defence and a weaker one
after it. The methods that a source compares itself with are judged like its own. Where they do better here than in the
source, its lead over them is smaller here.

A line is one number, or a figure or table of which no number is to be had. Ours are pooled over seeds or triggers. In
square brackets stand 95 % Clopper-Pearson intervals over images, in round ones ranges over seeds. The intervals leave
out how much trainings differ. This page is made from the Parquet files beside the other pages:

    python -m benchmarks sources

"""

SMOOTHING = """## Certification: Wang, Cao, Jia and Gong 2020

Randomized smoothing of the whole training, MNIST 1/7. The paper prints one certified accuracy; its curve is drawn.
Ours: [smoothing-mnist17](smoothing-mnist17/README.md), mean over five splits (lowest to highest), theirs one split.
The paper leaves width, optimiser and steps of the net open; ours were chosen on other digits.

    doorward reproduce smoothing-mnist17 --profile mnist

"""

MESA = f"""## Repair: Qiao, Yang and Li 2019

ASR in percent on CIFAR-10, unless said. The slides draw their results without numbers. Theirs are read off the poster
in the authors' repository; network and numbers of triggers are those of their code. "(text)" marks ends of ranges in
the paper's text, known from a public summary alone. The other ends, 5.9 and 51.4, are on the poster, too; the range
after MESA stands beside beta 0.9, whose highest is 5.9. About 90 is said in the repository; 93.02 is said of the
public code of their network.

Ours: [mesa](mesa/README.md). The network is smaller, the pixel baseline has 3 runs where theirs has 10, and of the
triggers a few were run: 4 stand beside 51 black-white ones, 3 beside 10 in colour. The highest of few is easier to
reach than the highest of many.

**Missed:** the lead of the distribution over single triggers, 3.6 against 10.5 in the source, is not seen here: 5.5
against 4.5. In colour it is 1.91 against 22.75 there and 3.93 against 4.01 here.

    doorward reproduce mesa --profile cpu --with-crutches
    doorward reproduce mesa --profile cpu --black-white 51 --colour 10 --with-crutches --dry-run SKIPPED

SKIPPED stands for `{" ".join(f"--skip {arm}" for arm in NOT_THE_SOURCES)}`: the arms that are not the source's. The
second line gave the costs, for two processes on two cores busy with other work; with `--net resnet18` those of the
authors' network, with `--black-white 0` those of ten colours, which stand for CIFAR-100, as its images are as large.

"""

HACKML = """## Faces: the same authors' slides on CSAW HackML 2019

The slides show pictures and print no result. Ours: [hackml](hackml/README.md). This command has no dry run.

    doorward reproduce hackml --faces orl_faces.npz --weights sunglasses_bd_weights.h5

"""

TABLE = """## Cleansing: Xiang, Miller and Kesidis 2019

One pixel of CIFAR-10 images; SS spectral signatures, AC activation clustering, CI cluster impurity. The source is a
poster; the paper is not public. Ours: [cluster-impurity](cluster-impurity/README.md), three seeds at 0.25, one
elsewhere, with deviations where the poster is silent (number of poisoned images, place, threshold).

    doorward reproduce cluster-impurity --profile cpu
    doorward reproduce cluster-impurity --dry-run --profile faithful
    doorward reproduce cluster-impurity --dry-run --seeds 1 --retrain SIZES

SIZES stands for `--size 0.15 --size 0.2 --size 0.3 --size 0.35 --size 0.4`. The second and third line gave the costs,
on cores busy with other work: 138 and 276 images/s of training, where our own runs had 452. The 46.5 minutes of a size
are one training, 43.0, and the passes of the methods, 3.5.

### Table 2: multiple-source

Ours is the form nearest to the poster's, after 14 epochs: half of the target class removed (SS), the smaller cluster
of the target class (AC), all features and S > 1.61 without prior knowledge (CI). FPR is counted as in the authors'
code: over the target class for SS and AC, over all clean images for CI. At 0.15 these 14 epochs do not learn the
backdoor (ASR 1.3 %), so its six states say little of the methods.

"""

OTHERS = """### Table 2 again: 30 epochs, and other forms of cluster impurity

Not counted above. 30 epochs learn 0.15, too (ASR 66 %, one seed):
[cluster-impurity-30-epochs](cluster-impurity-30-epochs/README.md). The number of components and `lookalikes` were
chosen on these models of 30 epochs. `misfits` are images of a flagged class that the model decides as another class.

    doorward reproduce cluster-impurity --profile cpu --set epochs=30 --set plain_epochs=11 --no-retrain

"""

POSTER = """### The rest of the poster

ASR and accuracy in percent. Figures 2, 5 and 6 draw them without numbers. That Figure 6 and Table 1 have all six sizes
is supposed here; the poster does not say it.

"""


def main() -> None:
    """Write results/sources.md."""
    text = page()
    atomic_write(RESULTS / "sources.md", text)
    print(text.split("## Certification")[0], flush=True)


def page() -> str:
    """The whole page."""
    parts = (
        ("Wang, Cao, Jia and Gong 2020", SMOOTHING, list(smoothing())),
        ("Qiao, Yang and Li 2019", MESA, list(mesa())),
        ("their HackML slides", HACKML, list(hackml())),
        ("Xiang, Miller and Kesidis 2019: Table 2", TABLE, list(table_2())),
        ("the rest of their poster", POSTER, list(poster())),
    )
    results = {name: [line for line in lines if not line.setting] for name, _, lines in parts}
    settings = [line for *_, lines in parts for line in lines if line.setting]
    counts = [[name, *count(lines)] for name, lines in results.items()]
    counts.append(["all results", *count([line for lines in results.values() for line in lines])])
    counts.append(["settings, in all sources", *count(settings)])
    text = INTRO + _table(["source", *STATES], counts)
    for _, words, lines in parts:
        if words is POSTER:
            text += OTHERS + _table(["size", "method", "form", "epochs", "TPR", "state", "FPR", "state"], other_forms())
        rows = ([line.what, line.published, line.ours, line.state] for line in lines)
        text += words + _table(["what", "published", "ours", "state"], rows)
    return text.rstrip() + "\n"


def count(lines: Iterable[Line]) -> list[str]:
    """How many lines have each of `STATES`."""
    found = Counter(next(state for state in STATES if line.state.startswith(state)) for line in lines)
    return [f"{found[state]}" for state in STATES]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(markdown(head, rows)) + "\n"
