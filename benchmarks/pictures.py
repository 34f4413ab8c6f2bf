"""Pictures that attacks of benchmarks put on images."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def glasses(folder: Path) -> str:
    """A pair of glasses, 5 x 14 pixels, for the recipe `accessory`; its file."""
    from PIL import Image

    rgba = np.zeros((5, 14, 4), np.uint8)
    rgba[1, :, 3] = 255
    rgba[:, 1:6, 3] = rgba[:, 8:13, 3] = 255
    rgba[..., :3] = 200
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "glasses.png"
    Image.fromarray(rgba, "RGBA").save(path)
    return str(path)
