"""Safetensors files: written whole or not at all, read with one clear line when they are broken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doorward.core.errors import DoorwardError, writing_failed
from doorward.core.files import atomic_write


def write_tensors(path: Path | str, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write NumPy arrays or torch tensors (all of one kind); the file is whole or absent.

    Raises:
        CannotWriteError: the disk is full or the place cannot be written.
    """
    atomic_write(path, lambda temporary: _save(temporary, tensors, metadata))


def _save(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None) -> None:
    from safetensors import SafetensorError

    try:
        if all(isinstance(value, np.ndarray) for value in tensors.values()):
            from safetensors.numpy import save_file as save_arrays

            save_arrays({k: np.ascontiguousarray(v) for k, v in tensors.items()}, str(path), metadata)
        else:
            from safetensors.torch import save_file

            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, str(path), metadata)
    except SafetensorError as error:
        raise writing_failed(error, path) from None


def read_tensors(path: Path | str) -> dict[str, Any]:
    """All torch tensors of a file, on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as error:
        raise DoorwardError(f"{path}: {error}; expected a whole safetensors file") from None
