"""MkDocs hook: a page per registered method, made from the registry; and pages of the repository outside docs/.

A new method gets its page by being registered: its docstring says what it is, its settings class what can be set.
"""

from __future__ import annotations

import inspect
import posixpath
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import doorward
from doorward.core import methods
from doorward.core.methods import KNOWLEDGE, Method
from doorward.core.settings import Settings

ROOT = Path(__file__).parent.parent
# Pages that lie elsewhere in the repository, and where the site has them.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
SHOWN_RESULTS = (".md", ".png")
VERBS = {
    "attack": "Attack recipes",
    "cleanse": "Cleansers",
    "invert": "Inversions",
    "repair": "Repairs",
    "screen": "Screens",
    "certify": "Certificates",
}
# What methods of many verbs are handed, where their docstring says no more of it.
USUAL = {
    "classifier": "The suspect model; left as it was.",
    "images": "The training images, as cells.",
    "labels": "Their labels.",
    "noise": "Noise on training pixels, training labels and test pixels.",
    "pixels": "The images, uint8 `[N, H, W, C]`.",
    "seed": "Decides everything random.",
    "watch": "Told about every step; keeps a search that can go on.",
}
ROOMS = (*doorward._ROOMS, "verifier")
_SECTION = re.compile(r"(Args|Returns|Raises|Fails when): *(.*)")
_MARKER = re.compile(r"<!-- methods: (\w+) -->")
_OBJECTS = re.compile(r"<!-- objects: ([\w. ]+) -->")
_PUBLIC = "<!-- public names -->"
_LINK = re.compile(r"(!?\[([^\]]*)\]\()([^)#\s:]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the menu's entries for methods and rooms."""
    made: dict[str, list[Any]] = {
        "Methods": [{VERBS[v]: [{m.name: _page(m)} for m in _all(v)]} for v in methods.VERBS],
        "Rooms": [{f"doorward.{room}": f"reference/{room}.md"} for room in ROOMS],
    }
    config.nav = _filled(config.nav, made)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    for verb in methods.VERBS:
        for method in _all(verb):
            files.append(File.generated(config, _page(method), content=method_page(method)))
    for room in ROOMS:
        content = f"# doorward.{room}\n\n::: doorward.{room}\n    options:\n      show_submodules: true\n"
        files.append(File.generated(config, f"reference/{room}.md", content=content))
    for source, place in outside().items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lists of methods and objects where a page asks for them; links of the repository, made to fit the site."""
    here = page.file.src_uri
    public = " ".join(f"doorward.{module}.{name}" for name, module in sorted(doorward._NAMES.items(), key=_verbs_first))
    markdown = markdown.replace(_PUBLIC, f"<!-- objects: {public} -->")
    markdown = _OBJECTS.sub(lambda found: "\n\n".join(map(_object, found[1].split())), markdown)
    markdown = _MARKER.sub(lambda found: method_list(found[1], here), markdown)
    return relink(markdown, here)


def _verbs_first(item: tuple[str, str]) -> tuple[bool, str]:
    return item[0][0].isupper(), item[0]


def _object(path: str) -> str:
    """Documentation of one object; the room's page is where links to it lead."""
    return f"::: {path}\n    options: {{skip_local_inventory: true}}"


def outside() -> dict[str, str]:
    """Where the site has what lies outside docs/, by its place in the repository."""
    results = [p for p in sorted((ROOT / "results").rglob("*")) if p.suffix in SHOWN_RESULTS]
    examples = sorted((ROOT / "examples").glob("*.py"))
    as_they_are = {p.relative_to(ROOT).as_posix(): p.relative_to(ROOT).as_posix() for p in (*results, *examples)}
    return {**OUTSIDE, **as_they_are}


def relink(markdown: str, here: str) -> str:
    """Links of a page that stand as in the repository, made relative to its place on the site.

    A link to something that the site does not have, such as a Parquet file, becomes plain text.
    """
    placed = outside()
    source = next((s for s, place in placed.items() if place == here), f"docs/{here}")

    def fit(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[3]))
        target = f"{target}/README.md" if f"{target}/README.md" in placed else target
        place = placed.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if not place:
            return found[2]
        return f"{found[1]}{posixpath.relpath(place, posixpath.dirname(here) or '.')}{found[4] or ''})"

    return _LINK.sub(fit, markdown)


def _filled(nav: Any, made: Mapping[str, list[Any]]) -> Any:
    """The menu with the entries of ``made`` in place of those of the same title, at any depth."""
    if isinstance(nav, dict):
        return {title: made[title] if title in made else _filled(inner, made) for title, inner in nav.items()}
    return [_filled(entry, made) for entry in nav] if isinstance(nav, list) else nav


def _all(verb: str) -> list[Method]:
    return [methods.get(verb, name) for name in methods.names(verb)]


def _page(method: Method) -> str:
    return f"methods/{method.verb}/{method.name}.md"


def method_list(verb: str, here: str) -> str:
    """A table of the methods of a verb, each linked to its page."""
    rows = ["| method | what it does |", "|---|---|"]
    for method in _all(verb):
        link = posixpath.relpath(f"docs/{_page(method)}", posixpath.dirname(f"docs/{here}"))
        rows.append(f"| [`{method.name}`]({link}) | {_cell(method.summary)} |")
    return "\n".join(rows)


def method_page(method: Method) -> str:
    """The page of one method: source, what it is given, settings, when it fails."""
    parts = sections(inspect.getdoc(method.function) or "")
    page = [f"# {method.name}", parts["summary"], *parts["text"]]
    if "Fails when" in parts:
        page += ["## Fails when", _sentence(parts["Fails when"])]
    page += ["## Given", *_given(method, parts.get("Args", ""))]
    page += ["## Settings", *_settings(method)]
    for name in ("Returns", "Raises"):
        if name in parts:
            page += [f"## {name}", _sentence(parts[name])]
    return "\n\n".join([*page, "## Use", _use(method), f"Source: `{method.function.__module__}`"]) + "\n"


def sections(text: str) -> dict[str, Any]:
    """A docstring's first sentence, its paragraphs, and its named sections."""
    paragraphs: list[str] = []
    named: dict[str, list[str]] = {}
    for block in re.split(r"\n\s*\n", text):
        plain: list[str] = []
        current = plain
        for line in block.split("\n"):
            found = _SECTION.match(line)
            if found:
                current = named.setdefault(found[1], [])
            current.append(found[2] if found else line)
        if plain:
            paragraphs.append(" ".join(plain))
    joined = {name: "\n".join(lines) for name, lines in named.items()}
    return {**joined, "summary": paragraphs[0], "text": paragraphs[1:]}


def _sentence(text: str) -> str:
    told = re.sub(r"\s+", " ", text).strip()
    return told if told[1:2] == " " else told[:1].upper() + told[1:]  # a symbol such as k stays as it is


def _given(method: Method, args: str) -> Iterator[str]:
    """What the method is handed, with what its docstring says of it; knowledge is marked."""
    told = {n: _sentence(t) for n, t in re.findall(r"^ *([\w, ]+): ((?:.|\n {6,})*)", args, re.MULTILINE)}
    told = {name.strip(): text for names, text in told.items() for name in names.split(",")}
    if not method.given | method.accepts:
        yield "The image shape and a random generator: the seed decides everything random."
        return
    rows = ["| what | required | |", "|---|---|---|"]
    for name in (*sorted(method.given), *sorted(method.accepts)):
        mark = " (knowledge that an auditor does not have in practice)" if name in KNOWLEDGE else ""
        needed = "yes" if name in method.given else "no"
        rows.append(f"| `{name}` | {needed} | {_cell(told.get(name) or USUAL.get(name, ''))}{mark} |")
    yield "\n".join(rows)


def _settings(method: Method) -> Iterator[str]:
    told = inspect.getdoc(method.settings) or ""
    yield from (" ".join(p.split()) for p in told.split("\n\n")[1:])
    rows = list(setting_rows(method.settings))
    if not rows:
        yield "None."
        return
    yield "\n".join(["| setting | default | allowed | |", "|---|---|---|---|", *rows])


def setting_rows(settings: type[Settings], values: Settings | None = None, before: str = "") -> Iterator[str]:
    """A row per setting; those of a nested class under its name, with the defaults that they have there."""
    for name, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        default = default if values is None else getattr(values, name)
        if isinstance(default, Settings):
            yield f"| `{before}{name}.*` | | | {_cell(field.description or '')} |"
            yield from setting_rows(type(default), default, f"{before}{name}.")
            continue
        shown = "required" if field.is_required() else "`2**30`" if default == 1 << 30 else f"`{default!r}`"
        told = _cell(field.description or "")
        yield f"| `{before}{name}` | {shown} | {_cell(allowed(field.annotation, field.metadata))} | {told} |"


def allowed(annotation: Any, metadata: list[Any]) -> str:
    """Type or choices of a setting, and its bounds."""
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}
    bounds = [
        f"{word} {getattr(m, k):g}" for m in metadata for k, word in signs.items() if getattr(m, k, None) is not None
    ]
    return ", ".join([_kind(annotation), *bounds])


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(a) for a in get_args(annotation))
    plain: Mapping[Any, str] = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true, false",
        type(None): "none",
    }
    return plain.get(annotation) or getattr(origin or annotation, "__name__", str(annotation))


def _use(method: Method) -> str:
    name, verb = method.name, method.verb
    option = {"attack": "--recipe", "certify": "--learner"}.get(verb, "--method")
    known = "".join(f" --know {k}=..." for k in sorted(method.knowledge - {"clean_images"}))
    given = {
        "attack": "photos/ --target 0 --rate 0.02 -o poisoned/",
        "cleanse": "photos/ --model model/ -o run/",
        "invert": "model/ --images clean/ -o run/",
        "repair": "model/ --images clean/ --triggers run/ -o repaired/",
        "screen": "model/ --images incoming/ --clean clean/ -o screened/",
        "certify": "photos/ --train 100 --test 500 -o run/",
    }[verb]
    return f"    doorward {verb} {given} {option} {name}{known}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
