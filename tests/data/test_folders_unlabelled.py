"""Pictures whose labels do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.data.sources import load_images


def draw(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")


def test_a_folder_without_classes_or_of_one_will_do_where_labels_do_not_matter(tmp_path: Path) -> None:
    draw(tmp_path / "flat", 3)
    draw(tmp_path / "single" / "cat", 1)
    for name, ids in (("flat", ["0.png", "1.png", "2.png"]), ("single", ["cat/0.png"])):
        images = load_images(tmp_path / name, labels=False)
        assert list(images.ids) == ids and images.labels.tolist() == [0] * len(ids)
        with pytest.raises(DoorwardError, match="class"):
            load_images(tmp_path / name)
