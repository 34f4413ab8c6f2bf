"""Any classifier of scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.certification.smoothing.parts.adapters import EstimatorLearner, NoSettings
from doorward.certification.smoothing.task import NoisyBlock
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method


class Sklearn(Settings):
    """Which scikit-learn classifier."""

    estimator: str = Field("LogisticRegression", description="name of a scikit-learn classifier")
    params: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="arguments of its constructor"
    )


@method("certify", "sklearn", settings=Sklearn, given={"images", "labels", "noise"})
def sklearn(block: NoisyBlock, settings: Sklearn) -> NDArray[np.uint8]:
    """Predict with any scikit-learn classifier, trained afresh for every trial.

    A base learner for flip smoothing (Wang, Cao, Jia and Gong 2020).

    Fails when: training one model takes long; this path trains one after another.

    Returns: uint8 ``[B, m]``, predicted classes.
    Raises: DoorwardError for an unknown estimator or argument.
    """
    from sklearn.utils import all_estimators

    known = dict(all_estimators(type_filter="classifier"))
    if settings.estimator not in known:
        raise DoorwardError(
            f"certify sklearn: no classifier {settings.estimator!r}; expected one of {', '.join(known)}"
        )
    try:
        estimator = known[settings.estimator](**settings.params)
    except TypeError as error:
        raise DoorwardError(f"certify sklearn: {settings.estimator}: {error}; expected its own arguments") from None
    return EstimatorLearner(estimator)(block, NoSettings())
