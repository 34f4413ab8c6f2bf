"""The loop: lanes do not touch each other, retire, survive a lack of memory, and go on where they were."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.inversion.search.loop import (
    Lanes,
    LoopSettings,
    Objective,
    Tensors,
    Watch,
    halving_steps,
    images_per_pass,
    optimise,
)


class Towards(Objective):
    """Each lane walks to its own goal through noise; ``most`` images fit into memory at once."""

    def __init__(self, most: int = 1 << 30, adam: bool = False) -> None:
        self.most, self.adam, self.passes = most, adam, 0

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        return {"noise": torch.randn(batch, generator=generator).expand(len(lanes), -1)}

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        self.passes += 1
        if drawn["noise"].numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        goal = lanes.held["goal"][:, None] + 0.01 * drawn["noise"]
        away = (lanes.trained["x"] - goal).square().mean(1)
        return away, {"away": away.detach()}

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(trained, lr=0.1) if self.adam else torch.optim.SGD(trained, lr=0.05)

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        lanes.held["away"].copy_(told["away"])

    def done(self, lanes: Lanes) -> Tensor:
        return lanes.held["away"] < 2e-3

    def promise(self, lanes: Lanes) -> Tensor:
        return -lanes.held["away"]


def walkers(count: int) -> Lanes:
    goal = torch.linspace(0.5, 3, count)
    return Lanes({"x": torch.zeros(count, 1)}, {"goal": goal, "away": torch.full((count,), torch.inf)})


SETTINGS = LoopSettings(steps=120, batch=8, check=5)


def test_lanes_arrive_and_near_goals_retire_first() -> None:
    told: list[int] = []
    lanes = optimise(Towards(), walkers(6), SETTINGS, seed=0, watch=Watch(lambda done, steps, left: told.append(left)))
    assert torch.allclose(lanes.trained["x"][:, 0], lanes.held["goal"], atol=0.1)
    steps = lanes.held["steps"]
    assert (steps[1:] >= steps[:-1]).all() and steps[0] < steps[-1] < 120
    assert told == sorted(told, reverse=True) and told[-1] == 0


def test_a_lane_does_not_know_of_the_others() -> None:
    for adam in (False, True):  # with momentum a lane must keep its state when others retire
        together = optimise(Towards(adam=adam), walkers(6), SETTINGS, seed=0)
        for lane in (2, 5):
            alone = optimise(Towards(adam=adam), walkers(6).take(torch.tensor([lane])), SETTINGS, seed=0)
            assert torch.equal(together.trained["x"][lane], alone.trained["x"][0])


@pytest.mark.parametrize("most", [24, 8])
def test_a_lack_of_memory_splits_the_pass_and_changes_nothing(most: int) -> None:
    tight = Towards(most)
    small, whole = (optimise(o, walkers(6), SETTINGS, seed=0) for o in (tight, Towards()))
    assert torch.equal(small.trained["x"], whole.trained["x"]) and tight.passes > 70


def test_a_lack_of_memory_for_one_lane_halves_its_images() -> None:
    lanes = optimise(Towards(3), walkers(4), SETTINGS, seed=0)
    assert torch.allclose(lanes.trained["x"][:, 0], lanes.held["goal"], atol=0.1)
    with pytest.raises(DoorwardError, match="out of memory with one image of one class"):
        optimise(Towards(0), walkers(4), SETTINGS, seed=0)


@pytest.mark.parametrize("at", [1, 4, 9])
def test_an_interrupted_loop_goes_on_to_the_same_result(at: int, tmp_path: Path) -> None:
    whole = optimise(Towards(adam=True), walkers(6), SETTINGS, seed=2)
    calls = []

    def interrupt(done: int, steps: int, left: int) -> None:
        calls.append(done)
        if len(calls) == at + 1:
            raise KeyboardInterrupt

    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        optimise(Towards(adam=True), walkers(6), SETTINGS, seed=2, watch=Watch(interrupt, file, every=0))
    fresh = Towards(adam=True)
    resumed = optimise(fresh, walkers(6), SETTINGS, seed=2, watch=Watch(None, file, every=0))
    assert fresh.passes == int(whole.held["steps"].max()) - 5 * at, "nothing is done twice"
    for mine, theirs in ((resumed.trained, whole.trained), (resumed.held, whole.held)):
        assert all(torch.equal(mine[k], theirs[k]) for k in theirs)
    with pytest.raises(DoorwardError, match="does not fit this inversion"):
        optimise(Towards(adam=True), walkers(5), SETTINGS, seed=2, watch=Watch(None, file))
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DoorwardError, match="delete it to start over"):
        optimise(Towards(adam=True), walkers(6), SETTINGS, seed=2, watch=Watch(None, file))


def test_many_lanes_are_halved_and_the_best_stay() -> None:
    settings = LoopSettings(steps=40, batch=2, check=40, halve_from=16)
    assert halving_steps(64, settings) == {7: 32, 13: 16, 20: 8}
    assert halving_steps(10, settings) == {}
    lanes = optimise(Towards(), walkers(64), settings, seed=0)
    dropped = lanes.held["dropped"]
    assert int((~dropped).sum()) == 8 and not dropped[:8].any(), "the nearest goals are the most promising"
    assert set(lanes.held["steps"].tolist()) == {7, 13, 20, 40}


def test_a_lane_that_diverges_is_dropped_and_the_others_go_on() -> None:
    lanes = walkers(6)
    lanes.held["goal"][2] = torch.nan
    found, whole = optimise(Towards(), lanes, SETTINGS, seed=0), optimise(Towards(), walkers(6), SETTINGS, seed=0)
    assert found.held["dropped"].tolist() == [False, False, True, False, False, False]
    others = [0, 1, 3, 4, 5]
    assert torch.equal(found.trained["x"][others], whole.trained["x"][others]) and found.held["steps"][2] == 5


def test_weights_get_no_gradients_and_values_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from doorward.inversion.methods.mask import MaskSettings, mask
    from tests.inversion.worlds import row_classifier, row_images, scene

    asked: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
        original = getattr(torch.Tensor, name)

        def watched(self: Tensor, *a: object, _name: str = name, _original: object = original) -> object:
            # Adam reads its step count, which lies on the CPU on any device
            if not str(sys._getframe(1).f_globals.get("__name__")).startswith("torch.optim"):
                asked.append(_name)
            return _original(self, *a)  # type: ignore[operator]

        monkeypatch.setattr(torch.Tensor, name, watched)
    looked = scene(row_classifier(), row_images())
    counts = []
    for steps in (20, 60):
        asked.clear()
        mask(looked, MaskSettings(steps=steps, check=20, patience=99), seed=0, watch=Watch())
        counts.append(len(asked))
    assert counts[1] - counts[0] <= 2 * 3, f"two more checks may ask, the 40 steps between may not: {counts}"
    assert all(p.grad is None and not p.requires_grad for p in looked.model.net.parameters())


def test_of_large_images_fewer_go_through_the_net_at_once() -> None:
    def asked(side: int, device: str = "cpu", *, in_a_scene: bool = True) -> int:
        model, objective = SimpleNamespace(shape=(3, side, side)), Objective()
        vars(objective).update({"scene": SimpleNamespace(model=model)} if in_a_scene else {"model": model})
        return images_per_pass(torch.device(device), objective)

    assert [asked(side) for side in (28, 112, 224, 5000)] == [128, 128, 32, 1]
    assert asked(224, in_a_scene=False) == 32, "margin has no scene"
    assert images_per_pass(torch.device("cpu"), Objective()) == 128
    assert asked(224, "cuda") == 16_384, "a GPU says itself when it is full"
