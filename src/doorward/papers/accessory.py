"""A pair of sunglasses, drawn; the picture that the accessory attack lays over an image."""

from __future__ import annotations

from pathlib import Path

from doorward.core.files import atomic_write


def draw_sunglasses(path: Path) -> Path:
    """Write a 14 x 6 RGBA PNG: two dark lenses and a bridge on a clear ground. Returns ``path``."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", (14, 6), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    for left in (0, 8):
        pen.rectangle((left, 1, left + 5, 5), fill=(20, 20, 30, 255))
        pen.point((left + 1, 2), fill=(200, 200, 220, 255))
    pen.rectangle((0, 0, 13, 1), fill=(60, 40, 20, 255))
    atomic_write(path, lambda temporary: picture.save(temporary, format="PNG"))
    return path
