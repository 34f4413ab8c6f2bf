"""How a method of each verb is run in the small world, and what its result comes to in plain arrays."""

from __future__ import annotations

import hashlib
import random
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.certification.certify import certify
from doorward.cleansers.cleanse import cleanse
from doorward.core import methods
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import Method
from doorward.core.pixels import to_float
from doorward.core.triggers import Trigger
from doorward.inversion.invert import invert
from doorward.inversion.results import Inversion
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.scene import Scene
from doorward.repairs.apply import apply_repair
from doorward.screens.screen import fit
from tests.contract.table import TRIGGERS, knowledge, settings
from tests.contract.worlds import TRIGGER, World, certified_sets, world


def run(method: Method, w: World, seed: int = 0, quick: bool = False, known: dict[str, Any] | None = None) -> Any:
    """What the verb gives for this method alone, which leaves everything it is handed as it was."""
    before = fingerprint(w)
    result = _run(method, w, seed, quick, known)
    after = fingerprint(w)
    assert not [k for k in before if before[k] != after[k]], f"{method.verb} {method.name} changes its inputs"
    return result


def _run(method: Method, w: World, seed: int, quick: bool, known: dict[str, Any] | None) -> Any:
    name, s, known = method.name, settings(method, quick), knowledge(method, w) if known is None else known
    if method.verb == "attack":
        stamp = method.function(w.test.shape, method.configure(s), torch.Generator().manual_seed(seed))
        return stamp, stamp.apply(to_float(w.test.pixels), torch.Generator().manual_seed(seed))
    if method.verb == "cleanse":
        return cleanse(w.train, w.model, [name], settings={name: s}, knowledge=known, seed=seed).suspicion(name)
    if method.verb == "invert":
        return invert(w.model, w.clean.subset(np.arange(180)), [name], settings={name: s}, knowledge=known, seed=seed)
    if method.verb == "repair":
        return apply_repair(w.model, name, triggers=TRIGGERS["repair"], settings=s, knowledge=known, seed=seed)
    if method.verb == "screen":
        return fit(w.model, w.clean, name, triggers=TRIGGERS["screen"], settings=s, knowledge=known, seed=seed)
    assert method.verb == "certify"
    train, test = certified_sets()
    trials = 64 if quick else 200
    return certify(train, test, name, settings=s, keep=0.8, trials=trials, binarise=100, seed=seed, device="cpu")


@cache
def found(verb: str, name: str, planted: bool = True) -> Any:
    """The result in the poisoned world or its clean twin, computed once."""
    return run(methods.get(verb, name), world(planted))


def arrays(method: Method, result: Any, w: World) -> dict[str, NDArray[Any]]:
    """All numbers of a result that a user would want to see again; of a verb's or of the method's own."""
    if method.verb == "attack":
        return {"stamped": result[1].numpy()}
    if method.verb == "cleanse":
        return {"score": result.score, "flag": result.flag}
    if method.verb == "invert":
        inverted = result.outcomes[method.name].inverted if isinstance(result, Inversion) else result
        triggers = {f"{k}-{i}": t.pattern for k, ts in inverted.triggers.items() for i, t in enumerate(ts)}
        return {"statistic": inverted.statistic} | {k: v.detach().cpu().numpy() for k, v in triggers.items()}
    if method.verb == "repair":
        return {k: v.cpu().numpy() for k, v in result.classifier.net.state_dict().items()}
    if method.verb == "screen":
        return {"scores": result.scores(w.test.pixels), "threshold": np.array([result.threshold])}
    return {"predicted": result.predicted, "radii": result.radii, "joint": result.joint_radii, "votes": result.votes}


def handed(method: Method, w: World, **asked: Any) -> dict[str, Any]:
    """What the verb hands the method's function, caught before it runs."""
    seen: dict[str, Any] = {}

    class Seen(Exception):
        pass

    def spy(**given: Any) -> None:
        seen.update(given)
        raise Seen

    key = (method.verb, method.name)
    methods._REGISTRY[key] = replace(method, function=spy)
    try:
        with suppress(Seen):
            run(method, w, **asked)
    finally:
        methods._REGISTRY[key] = method
    return seen


def same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


def stir(seed: int) -> None:
    """Move every global generator, so that a method that draws from one does not repeat."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def fingerprint(w: World) -> dict[str, str]:
    """Of everything that a method is handed and must leave as it was."""
    train, test = certified_sets()
    sets = {"train": w.train, "clean": w.clean, "test": w.test, "certified": train, "certified test": test}
    told = {f"{k} pixels": hashlib.sha256(v.pixels.tobytes()).hexdigest() for k, v in sets.items()}
    told |= {f"{k} labels": hashlib.sha256(v.labels.tobytes()).hexdigest() for k, v in sets.items()}
    told["trigger"] = hashlib.sha256(TRIGGER.pattern.numpy().tobytes() + TRIGGER.alpha.numpy().tobytes()).hexdigest()
    return told | net_state(w.model)


def net_state(model: Classifier) -> dict[str, str]:
    weights = b"".join(v.cpu().numpy().tobytes() for v in model.net.state_dict().values())
    parameters = list(model.net.parameters())
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "trainable": str([p.requires_grad for p in parameters]),
        "gradients": str([p.grad is None for p in parameters]),
        "mode": str(model.net.training),
    }


def digest(value: Any) -> Any:
    """Of whatever a method is handed: equal before and after, or it was changed."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, torch.Tensor):
        return digest(value.detach().cpu().numpy())
    if isinstance(value, torch.nn.Module):
        return {k: digest(v) for k, v in value.state_dict().items()}
    if isinstance(value, dict):
        return {str(k): digest(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [digest(v) for v in value]
    if isinstance(value, ImageSet | Classifier | Scene | Frozen | Trigger):
        return {k: digest(v) for k, v in vars(value).items()}
    return None
