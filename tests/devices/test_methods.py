"""Every registered method goes through with its net on another device, in a small world."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from doorward.core.methods import Method
from doorward.core.pixels import to_float
from tests.contract.runs import _run
from tests.contract.table import by_name, of, settings
from tests.contract.worlds import RATE, TARGET, TRIGGER, World
from tests.devices.pretend import DEVICE, Away


def known(method: Method, w: World) -> dict[str, Any]:
    """Everything that the method can use."""
    clean = np.flatnonzero(~w.poisoned)[:60] if method.verb == "cleanse" else w.clean
    every = {"poisoning_rate": RATE, "target_class": TARGET, "clean_images": clean, "true_trigger": TRIGGER}
    return {k: v for k, v in every.items() if k in method.knowledge | method.accepts}


@pytest.mark.parametrize("method", of("cleanse", "invert", "repair", "screen"), ids=by_name)
def test_a_method_goes_through(method: Method, there: World) -> None:
    result = _run(method, there, 0, True, known(method, there))
    if method.verb == "screen":
        assert len(result(there.test.pixels).scores) == len(there.test)
    if method.verb == "repair":
        assert result.classifier.device == DEVICE


@pytest.mark.parametrize("method", of("attack"), ids=by_name)
def test_a_stamp_does_there_what_it_does_on_the_cpu(method: Method, here: World) -> None:
    stamp = method.function(here.test.shape, method.configure(settings(method)), torch.Generator().manual_seed(1))
    images = to_float(here.test.pixels[:8])
    away = stamp.apply(images.to(DEVICE), torch.Generator().manual_seed(2))
    assert isinstance(away, Away)
    assert torch.equal(away.cpu(), stamp.apply(images, torch.Generator().manual_seed(2)))
