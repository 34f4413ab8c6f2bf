"""Principal components of one class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def principal_components(values: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    """Leading principal components ``[n, dimensions]``; directions without variance are left out."""
    centred = values - values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred)
    alive = int((eigenvalues > 1e-9 * max(eigenvalues[-1], 1e-300)).sum())
    kept = max(1, min(dimensions, alive))
    return centred @ vectors[:, ::-1][:, :kept]
