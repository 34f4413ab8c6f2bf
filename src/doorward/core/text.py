"""Words and numbers as people read them; whatever came from outside is made visible and short."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

LONGEST_NAME = 80
_LONGEST_TEXT = 4000
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_HARMLESS = frozenset("\n\t\u200c\u200d\u00ad")  # line breaks, joiners that scripts and emoji need, soft hyphen


def visible(text: str, longest: int = _LONGEST_TEXT) -> str:
    """The text with every control, bidirectional and unpaired-surrogate character written as an escape.

    A class name can otherwise reorder what stands around it, or hold a character that no file can be written with.
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(_escape(c) if unicodedata.category(c) in _HIDDEN and c not in _HARMLESS else c for c in cut)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def name(text: str) -> str:
    """A name from outside (class, method, file): one line, at most 80 characters."""
    return visible(" ".join(text.split()) or "(no name)", LONGEST_NAME)


def with_class_names(told: str, classes: Sequence[str]) -> str:
    """``classes 3, 7: too few images`` of a method, which knows numbers alone, with the names of the classes."""

    def named(found: re.Match[str]) -> str:
        labels = [int(text) for text in found[2].split(", ")]
        if max(labels) >= len(classes):
            return found[0]
        return f"{found[1]} {', '.join(name(classes[label]) for label in labels)}"

    return re.sub(r"\b(class|classes) (\d+(?:, \d+)*)(?=:| and \d+ more:)", named, told)


def percent(value: float | None, digits: int = 1) -> str:
    """A share in 0..1 as a percentage; a dash when it is unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    shown = f"{100 * value:.{digits}f}"
    if value > 0 and float(shown) == 0:
        return f"< {10**-digits:g} %"
    if value < 1 and float(shown) == 100:
        return f"> {100 - 10**-digits:g} %"
    return f"{shown} %"


def extent(low: float, high: float) -> str:
    """An interval of shares: ``95.5 to 100.0 %``."""
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def auroc(value: float | None) -> str:
    """An area under the ROC curve with three decimals; 1.000 is said of a perfect ranking only."""
    if value is None:
        return "–"
    return "> 0.999" if value < 1 and f"{value:.3f}" == "1.000" else f"{value:.3f}"


def count(value: int) -> str:
    """A whole number with thousands separated by a comma."""
    return f"{value:,}"


def number(value: float | None) -> str:
    """A measured number with three significant digits; a dash when it is unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10^{int(exponent)}"


def plural(number_of: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``2 classes``."""
    ending = "" if number_of == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(number_of)} {noun}{ending}"


def listing(items: Sequence[str], longest: int = 6) -> str:
    """``a, b and c``; a long list is cut and says by how much."""
    shown = list(items[:longest])
    if len(items) > longest:
        shown.append(f"{len(items) - longest} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def quoted(text: str) -> str:
    """A class name within a sentence."""
    return f"“{name(text)}”"


def settings(values: dict[str, Any]) -> str:
    """Settings on one line: ``a = 1, b = "x"``."""
    return ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()) or "none"


def duration(seconds: float) -> str:
    """``about 35 minutes``."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 5400:
        minutes = round(seconds / 60)
        return f"about {minutes} minute{'s' if minutes > 1 else ''}"
    return f"about {seconds / 3600:.1f} hours" if seconds < 172_800 else f"about {seconds / 86_400:.1f} days"
