"""Run all benchmarks, or those named; each writes its table into results/."""

from __future__ import annotations

import argparse
import importlib
import os

NAMES = (
    "train_throughput",
    "cleanse_speed",
    "cleanse_large",
    "clean_sets",
    "newcomer",
    "invert_speed",
    "invert_scan",
    "invert_validation",
    "invert_verdicts",
    "repair_holds",
    "repair_zoo",
    "repair_peers",
    "audit_matrix",
    "audit_clean",
    "audit_cifar",
    "audit_photographs",
    "audit_zoo",
    "certify_throughput",
    "million_images",
    "open_files",
    "decode_speed",
    "large",
    "fuzz",
    "crash_points",
    "sources",
)

RESUMABLE = (
    "repair_holds", "repair_zoo", "repair_peers", "audit_matrix", "audit_clean", "audit_cifar", "audit_photographs",
    "audit_zoo", "invert_verdicts",
)  # fmt: skip


def main() -> None:
    """Run what was asked for, in this process, one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default all")
    parser.add_argument("--jobs", type=int, default=1, help=f"processes, of fuzz, {', '.join(RESUMABLE)}")
    parser.add_argument(
        "--rows", type=int, help=f"so many nets alone, of {', '.join(RESUMABLE)}; of crash_points kills of each command"
    )
    parser.add_argument("--seconds", type=int, help="how long fuzz tries; 60 unless given")
    parser.add_argument("--seed", type=int, default=0, help="of fuzz: other damages")
    parser.add_argument("--readers", default="", help="of fuzz: those alone with this in their name; tar+zip for both")
    given = parser.parse_args()
    asked = given.names or NAMES
    own = {name: {"jobs": given.jobs, "rows": given.rows} for name in RESUMABLE}
    own["fuzz"] = {"jobs": given.jobs, "seconds": given.seconds, "seed": given.seed, "readers": given.readers}
    own["crash_points"] = {"most": given.rows or 0}
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in asked:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; expected one of {', '.join(NAMES)}")
    for name in asked:
        importlib.import_module(f"benchmarks.{name}").main(**own.get(name, {}))


if __name__ == "__main__":
    main()
