"""Safetensors files: written whole or not at all, read with one clear line when they are broken."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doorward.core.errors import DoorwardError, writing_failed


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write NumPy arrays or torch tensors (all of one kind) under a temporary name, then rename.

    Raises:
        OSError: the disk is full or the place cannot be written.
    """
    from safetensors import SafetensorError

    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if all(isinstance(value, np.ndarray) for value in tensors.values()):
            from safetensors.numpy import save_file as save_arrays

            save_arrays({k: np.ascontiguousarray(v) for k, v in tensors.items()}, str(temporary), metadata)
        else:
            from safetensors.torch import save_file

            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, str(temporary), metadata)
        temporary.replace(path)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise writing_failed(error, path) from None


def read_tensors(path: Path) -> dict[str, Any]:
    """All torch tensors of a file, on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as error:
        raise DoorwardError(f"{path}: {error}; expected a whole safetensors file") from None
