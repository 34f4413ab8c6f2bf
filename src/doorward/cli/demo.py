"""``doorward demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli import common


def demo_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the demo's runs.")] = Path("doorward-demo"),
    seed: common.Seed = 11,
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with this many seeds, counting up.")] = 1,
    table: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """See Doorward find a backdoor: three attacks and a clean control on 5,000 bundled digits, in four minutes.

    Poisons, trains, cleanses with three methods, retrains, audits, repairs, certifies, prints one table and writes a
    report.

    Example: doorward demo
    """
    import time

    from doorward.certification.results import CertifyRecord
    from doorward.core.files import atomic_write
    from doorward.core.locks import held
    from doorward.core.results import read_record
    from doorward.demo.run import demo, prepare
    from doorward.demo.table import COLUMNS, NARROW, markdown, rows

    started = time.monotonic()
    wanted = list(range(seed, seed + seeds))
    folders = [output if seeds == 1 else output / f"seed-{s}" for s in wanted]
    with held(output):
        prepare(output, wanted, overwrite)
        for s, folder in zip(wanted, folders, strict=True):
            with common.display("demo" if seeds == 1 else f"demo, seed {s}") as progress:
                report = demo(folder, s, progress=progress)
    if table is not None:
        atomic_write(table, markdown(folders, wanted))
    found = rows(folders)
    if as_json:
        cells = [dict(zip(COLUMNS, row, strict=True)) for row in found]
        common.print_json({"rows": cells, "report": str(report), "seconds": round(time.monotonic() - started, 1)})
        return
    title = "5,000 MNIST digits, 2 % poisoned (then: retrained on what the method leaves)"
    common.print_table(title, NARROW, found)
    proved = read_record(CertifyRecord, folders[-1] / "certificate")
    share = 100 * proved.certified_accuracy.get(2, 0.0)
    common.out.print(
        f"certified: for {share:.0f} % of {proved.test_images} digits (1 or 7), no change of any 2 training pixels, "
        "labels or test pixels can change their right label",
        soft_wrap=True,
    )
    common.out.print(f"report: {common.escape(str(report))}   ({time.monotonic() - started:.0f} s)", soft_wrap=True)
