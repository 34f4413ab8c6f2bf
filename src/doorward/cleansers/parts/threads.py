"""How many threads the small matrices of a class get."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, BLAS and OpenMP use one thread, and scikit-learn keeps to itself that features coincide.

    The matrices of a class are small: a second thread gains nothing, and threads that wait for each other on a busy
    machine made clustering many times slower. It also makes the result independent of the number of cores.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a net that has hardly learned; the verdict says so
        yield
