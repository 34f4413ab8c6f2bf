"""Fine-pruning: the order, the stop rule, that pruned channels stay pruned, and a backdoor that goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.models.nets.catalogue import NETS, build
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.repairs.apply import apply_repair
from doorward.repairs.methods.prune import PruneSettings, allowed_prunings, hits_while_pruning, mean_activation, prune
from doorward.repairs.parts.channels import find_channels
from tests.conftest import make_images

SHAPES = {"deepid": (55, 47, 3)}
CHANNELS = {
    "two-layer": 128,
    "small-cnn": 32,
    "pooled-cnn": 32,
    "conv4": 64,
    "resnet20": 64,
    "resnet18": 512,
    "deepid": 80,
}


def fresh(net: str, images: ImageSet) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build(net, images.shape, 3).eval(), net, images.classes, images.shape)


@pytest.mark.parametrize("net", sorted(set(NETS) - {"resnet18"}))
def test_channels_of_every_net_are_found_with_their_columns(net: str) -> None:
    images = make_images(6, shape=SHAPES.get(net, (16, 16, 3)))
    classifier = fresh(net, images)
    channels = find_channels(classifier, images)
    assert channels.columns.shape == (CHANNELS[net], channels.reader.in_features)
    assert int(channels.columns.sum(dim=0).max()) == 1
    if net == "small-cnn":  # 16 x 16 images, pooled twice: 16 columns per channel, one after the other
        assert channels.reader is classifier.net.hidden
        assert torch.equal(channels.columns, torch.eye(32, dtype=torch.bool).repeat_interleave(16, dim=1))
    if net == "deepid":
        assert channels.reader is classifier.net.fc_2, "fc_1 reads the third convolution, not the last"


def test_a_layer_that_mixes_the_channels_is_passed_over() -> None:
    class Backwards(torch.nn.Module):
        """Its output layer, which reads sums over all channels, is declared before the one that reads them."""

        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 4, 3)
            self.output = torch.nn.Linear(5, 3)
            self.hidden = torch.nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.output(self.hidden(self.convolution(x).relu().mean((2, 3))))

    images, net = make_images(6), Backwards().eval()
    found = find_channels(Classifier(net, "backwards", images.classes, images.shape), images)
    assert found.reader is net.hidden and torch.equal(found.columns, torch.eye(4, dtype=torch.bool))
    with pytest.raises(DoorwardError, match="bare has no linear layer; expected one that reads its channels"):
        find_channels(Classifier(torch.nn.Conv2d(3, 3, 10), "bare", images.classes, images.shape), images)


class Tokens(torch.nn.Module):
    """A transformer: its patches are convolved, its attention mixes their channels and reads its weights itself."""

    def __init__(self, head_first: bool) -> None:
        super().__init__()
        self.patches, self.head_first = torch.nn.Conv2d(3, 8, 4, 4), head_first
        self.mixed = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.mixed(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(tokens).mean(1) if self.head_first else self.head(tokens.mean(1))


def test_of_a_transformer_the_inputs_of_the_head_are_pruned() -> None:
    images = make_images(6, shape=(16, 16, 3))
    nets = [Classifier(Tokens(first).eval(), "tokens", images.classes, images.shape) for first in (False, True)]
    found = find_channels(nets[0], images)
    assert found.reader is nets[0].net.head and torch.equal(found.columns, torch.eye(8, dtype=torch.bool))
    with pytest.raises(DoorwardError, match="linear layers of tokens: .*the last reads no vector per image"):
        find_channels(nets[1], images)


@pytest.mark.parametrize("net", ["small-cnn", "resnet20", "two-layer"])
def test_hits_equal_those_of_nets_that_are_really_pruned(net: str) -> None:
    images = make_images(48, shape=(12, 12, 3))
    classifier = train(images, net, TrainSettings(epochs=1, batch=16, lr=0.02))
    before = {k: v.clone() for k, v in classifier.net.state_dict().items()}
    channels = find_channels(classifier, images)
    order = np.random.default_rng(0).permutation(len(channels.columns))
    hits = hits_while_pruning(classifier, channels, order, images)
    assert all(torch.equal(v, before[k]) for k, v in classifier.net.state_dict().items()), "left as it was"
    for count in (0, 1, len(order) // 2, len(order) - 1, len(order)):
        with torch.no_grad():
            channels.reader.weight[:, channels.columns[torch.from_numpy(order[:count])].any(0)] = 0
        assert hits[count] == measure_accuracy(classifier, images).hits
        classifier.net.load_state_dict(before)


def test_mean_activation_by_hand() -> None:
    images = make_images(8, shape=(10, 10, 3))
    classifier = fresh("small-cnn", images)
    channels = find_channels(classifier, images)
    seen = []
    classifier.net.flatten.register_forward_hook(lambda _, __, output: seen.append(output))
    found = mean_activation(classifier, channels, images.pixels)
    expected = seen[0].detach().reshape(8, 32, -1).mean(dim=(0, 2)).numpy()
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("hits", "drop", "expected"),
    [
        ([100, 100, 97, 96, 95], 0.04, 3),
        ([100, 95, 99, 99, 99], 0.04, 0),  # the first one that costs too much ends it, whatever comes after
        ([90, 92, 88, 86], 0.04, 3),
        ([50, 50, 50], 0.0, 2),
        ([50, 49, 50], 0.0, 0),
    ],
)
def test_the_stop_rule_by_hand(hits: list[int], drop: float, expected: int) -> None:
    assert allowed_prunings(np.array(hits), 100, drop) == expected


def backdoored() -> tuple[Classifier, ImageSet, object]:
    poisoned = attack(make_images(400, shape=(12, 12, 3)), "patch", target=0, rate=0.1, seed=0)
    return train(poisoned.images, "small-cnn", TrainSettings(epochs=10, batch=32, lr=0.05)), poisoned.images, poisoned


def test_it_takes_a_backdoor_out_and_leaves_the_classifier_it_was_given() -> None:
    classifier, _, poisoned = backdoored()
    test = make_images(200, shape=(12, 12, 3), seed=2)
    before = asr(classifier, test, poisoned.attack)
    weights = {k: v.clone() for k, v in classifier.net.state_dict().items()}
    clean = make_images(240, shape=(12, 12, 3), seed=3)
    repaired = prune(classifier, clean, PruneSettings(epochs=4, batch=32), seed=0)
    after = asr(repaired.classifier, test, poisoned.attack)
    assert before.value > 0.9 and after.value < before.value / 2
    assert measure_accuracy(repaired.classifier, test).value > 0.95
    assert all(torch.equal(v, weights[k]) for k, v in classifier.net.state_dict().items())
    count, order = repaired.details["pruned"], repaired.details["order"]
    assert 0 < count < 32 and len(repaired.steps) == 3
    assert repaired.steps[1].accuracy.value >= repaired.steps[0].accuracy.value - 0.04
    assert all(step.accuracy.trials == 48 for step in repaired.steps), "a fifth of the clean images is held out"
    pruned = repaired.classifier.net.hidden.weight.reshape(64, 32, -1)[:, order[:count]]
    assert (pruned == 0).all(), "fine-tuning brings no pruned channel back"
    assert repaired.classifier.net.hidden.weight.ne(classifier.net.hidden.weight).any()


def test_it_repeats() -> None:
    images = make_images(120, shape=(12, 12, 3))
    classifier = train(images, "small-cnn", TrainSettings(epochs=2, batch=16, lr=0.05))
    one, two = (prune(classifier, images, PruneSettings(epochs=2), seed=4).classifier.net for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_knowledge_is_refused_unless_given_and_images_must_fit() -> None:
    images = make_images(60)
    classifier = train(images, "small-cnn", TrainSettings(epochs=1, batch=16))
    with pytest.raises(DoorwardError, match="repair prune: needs clean_images, which was not given"):
        apply_repair(classifier, "prune")
    with pytest.raises(DoorwardError, match="knowledge 'pictures'; expected one of"):
        apply_repair(classifier, "prune", knowledge={"pictures": images})
    with pytest.raises(DoorwardError, match="other image size or classes"):
        apply_repair(classifier, "prune", knowledge={"clean_images": make_images(60, shape=(9, 9, 3))})
    with pytest.raises(DoorwardError, match="6 clean images; expected more, to hold some out"):
        apply_repair(classifier, "prune", knowledge={"clean_images": make_images(6)})
