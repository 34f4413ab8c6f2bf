"""Figures of papers. matplotlib is theirs alone, and imported when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doorward.core.errors import DoorwardError
from doorward.core.files import atomic_write


def open_pyplot() -> Any:
    """``matplotlib.pyplot``, drawing without a screen.

    Raises:
        DoorwardError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise DoorwardError(
            "reproduce: matplotlib, which draws the figures, is not installed; expected pip install 'doorward[papers]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(figure: Any, path: Path, dpi: int = 130) -> Path:
    """Write a figure as PNG and close it; returns ``path``."""
    atomic_write(path, lambda temporary: figure.savefig(temporary, dpi=dpi, format="png"))
    open_pyplot().close(figure)
    return path
