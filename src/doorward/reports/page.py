"""Composes the page: sections into one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from markupsafe import Markup

from doorward import __version__
from doorward.core import text
from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.files import atomic_write, drop_abandoned
from doorward.core.results import FINDINGS, LEVELS, Result
from doorward.reports.run_files import RunFolder, told_apart
from doorward.reports.sections import Section, build, supported

THUMBNAIL_BYTES = 1_500_000  # for the whole page, shared by the runs on it
_MOST_SECTIONS = 24  # of more runs, the worst get a section; the others stand in the table alone
_SPOKEN = {
    "planted": "planted backdoor",
    "evidence": "evidence of a backdoor",
    "suspicious": "suspicious",
    "not repaired": "not repaired",
    "undecided": "undecided",
    "nothing found": "nothing found",
    "repaired": "repaired",
    "certificate": "certificate",
}


@dataclass(frozen=True)
class Page:
    """A composed page and the sections it was made of."""

    title: str
    html: str
    sections: tuple[Section, ...]

    @property
    def has_findings(self) -> bool:
        """Whether any run on it came to more than nothing."""
        return any(s.verdict.level in FINDINGS for s in self.sections)


Reportable = Result | Path | str


def report(
    results: Sequence[Reportable] | Reportable,
    path: Path | str = "report.html",
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML page about one or several results.

    Args:
        results: what verbs returned, or folders of finished runs, one or several.
        path: the HTML file to write, ``report.html`` here where nothing is said; folders above it are made.
        title: the page's title; made from the runs when absent.
        overwrite: replace an existing file.

    Returns:
        the path of the page.

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is False.
        DoorwardError: a run is missing, cut short, or of a verb that has no section.

    The page holds no script and makes no request; nothing is recomputed. Nothing is written unless all is well.
    """
    path = Path(path)
    refuse_if_taken(path, overwrite)
    page = compose(results, title)
    atomic_write(path, page.html)
    return path


def compose(results: Sequence[Reportable] | Reportable, title: str | None = None) -> Page:
    """Read the runs and make the page, without writing it; arguments and errors as for `report`."""
    given: list[Any] = [results]
    if isinstance(results, Iterable) and not isinstance(results, Result | Path | str):
        given = list(results)
    for one in given:
        if not isinstance(one, Result | Path | str):
            told = f"report: a result of type {type(one).__name__}"
            raise DoorwardError(f"{told}; expected what a verb returned, or the folder of a run")
    if not given:
        raise DoorwardError(f"no runs; expected at least one folder of a {' or '.join(supported())} run")
    with TemporaryDirectory(prefix="doorward-") as place:  # what is in memory is read as everybody's runs are
        opened = told_apart([RunFolder.open(_folder(r, Path(place), i)) for i, r in enumerate(given, 1)])
        share = THUMBNAIL_BYTES // min(len(opened), _MOST_SECTIONS)
        sections = tuple(build(run, share) for run in opened)
    if title is None:
        title = _title(sections)
    return Page(title, _render(sections, title), sections)


def _folder(result: Reportable, place: Path, number: int) -> Path:
    return result.save(place / f"{result.verb}-{number}") if isinstance(result, Result) else Path(result)


def refuse_if_taken(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless it is a file and may be replaced; what a killed command began there goes."""
    drop_abandoned(path)
    if path.is_dir():
        raise OutputExistsError(f"{path}: is a folder; expected the name of a file")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already; expected a new file, or --overwrite to replace it")


def _render(sections: Sequence[Section], title: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("doorward.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        text.auroc,
        text.count,
        text.extent,
        text.listing,
        text.name,
        text.number,
        text.percent,
        text.plural,
        text.settings,
    ):
        environment.filters[function.__name__] = function
    loader = environment.loader
    assert loader is not None
    style = loader.get_source(environment, "style.css")[0].strip()
    worst_first = sorted(range(len(sections)), key=lambda i: LEVELS.index(sections[i].verdict.level))
    detailed = set(worst_first[:_MOST_SECTIONS])
    return environment.get_template("page.html").render(
        title=title,
        style=Markup(style),  # our own file; the hash below lets the browser refuse any other
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        sections=[{"id": f"run-{i + 1}", "detailed": i in detailed, "s": s} for i, s in enumerate(sections)],
        tables=_overview_tables(sections),
        summary=_summary(sections),
        worst=sections[worst_first[0]].verdict.level,
        spoken=_SPOKEN,
        version=__version__,
        written=_today(),
    )


def finalize(value: Any) -> Any:
    """What Jinja prints: text made visible before it is escaped; markup that this package built stays as it is."""
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _title(sections: Sequence[Section]) -> str:
    if len(sections) > 1:
        return "Backdoor audit"
    first = "Repair of" if sections[0].run.manifest.verb == "repair" else "Backdoor audit of"
    kind = "Certificate for" if sections[0].verdict.level == "certificate" else first
    return f"{kind} {text.name(sections[0].subject)}"


def _summary(sections: Sequence[Section]) -> str:
    """Several runs in one sentence."""
    counts = Counter(s.verdict.level for s in sections)
    parts = [f"{counts[level]}\u00a0×\u00a0{_SPOKEN[level]}" for level in LEVELS if counts[level]]
    return f"{text.plural(len(sections), 'run')}: {', '.join(parts)}"


def _overview_tables(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One table per verb: the columns that any of its runs has, in order of appearance."""
    tables = []
    for verb in dict.fromkeys(s.run.manifest.verb for s in sections):
        own = [(f"run-{i + 1}", s) for i, s in enumerate(sections) if s.run.manifest.verb == verb]
        columns = list(dict.fromkeys(column for _, s in own for column in s.overview))
        tables.append({"verb": verb, "columns": columns, "rows": own})
    return tables


def _today() -> str:
    """The day of writing (UTC); SOURCE_DATE_EPOCH fixes it, for pages that repeat byte by byte."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(fixed), UTC) if fixed.isdigit() else datetime.now(UTC)
    return f"{now.day} {now:%B %Y}"
