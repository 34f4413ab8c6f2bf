"""The verb: one pass, exactly what was declared, and real digits from end to end."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from doorward import cleanse as cleanse_verb
from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.cleansers.cleanse import cleanse
from doorward.cleansers.observe import logits_under, observe
from doorward.cleansers.parts.filters import candidates, mean_filter
from doorward.cleansers.results import Cleansing
from doorward.core.classifier import Classifier, forward_batch
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from tests.conftest import make_images
from tests.light import lighten

TRAINING = TrainSettings(epochs=8, batch=64, lr=0.05)


def test_observations_equal_one_by_one_calls(images: ImageSet, tmp_path: Path) -> None:
    classifier = train(images, "small-cnn", TrainSettings(epochs=1, batch=16))
    seen = observe(images, classifier, ["mean2"], batch=7)
    for index in (0, 6, 7, 59):
        one = to_float(images.pixels[index : index + 1])
        assert np.allclose(seen.logits[index], classifier.logits(one).detach().numpy(), atol=1e-4)
        filtered = classifier.logits(mean_filter(one, 2)).detach().numpy()
        assert np.allclose(seen.filtered_logits["mean2"][index], filtered, atol=1e-4)
    linear = [m for m in classifier.net.modules() if isinstance(m, torch.nn.Linear)][-1]
    assert np.allclose(linear(torch.from_numpy(seen.features)).detach().numpy(), seen.logits, atol=1e-4)
    on_disk = observe(images, classifier, ["mean2"], batch=7, folder=tmp_path)
    assert isinstance(on_disk.features, np.memmap) and (on_disk.features == seen.features).all()


class Told(torch.nn.Module):
    """Tells how many images come at a time, and where its weights lie."""

    images: ClassVar[list[int]] = []
    weights: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Told.images.append(len(images))
        Told.weights.add(self.head.weight.data_ptr())
        return self.head(self.conv(images).relu().mean((2, 3)))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_large_images_come_few_at_a_time_and_are_seen_the_same(two_threads: None) -> None:
    torch.manual_seed(0)
    large = make_images(count=40, shape=(150, 160, 3))
    classifier = Classifier.from_module(Told(), large)
    fixed = observe(large, classifier, ["mean2"], batch=128)
    Told.images.clear()
    Told.weights.clear()
    seen = observe(large, classifier, ["mean2"])
    few = forward_batch(torch.device("cpu"), large.shape)
    assert few < 8 and max(Told.images[-16:]) == few, "the first calls are of the probe"
    assert sum(Told.images[-16:]) == 2 * len(large), "two passes, no image twice"
    assert len(Told.weights) == 1, "threads share the weights"
    np.testing.assert_allclose(seen.features, fixed.features, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.filtered_logits["mean2"], fixed.filtered_logits["mean2"], rtol=1e-4, atol=1e-6)


def test_wrong_size_and_constant_features_are_refused(images: ImageSet) -> None:
    classifier = train(images, "small-cnn", TrainSettings(epochs=1, batch=16))
    with pytest.raises(DoorwardError, match="images of 3x9x9; the classifier takes 3x12x10"):
        observe(make_images(shape=(9, 9, 3)), classifier)
    torch.nn.init.zeros_(dict(classifier.net.named_modules())["hidden"].weight)  # type: ignore[arg-type]
    with pytest.raises(DoorwardError, match="the same for every image"):
        observe(images, classifier)
    torch.nn.init.constant_(dict(classifier.net.named_modules())["hidden"].weight, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(DoorwardError, match="NaN or infinity"):
        observe(images, classifier)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": ["magic"]}, "no method 'magic'; expected one of"),
        ({"methods": ["spectral"], "settings": {"impurity": {}}}, "settings for 'impurity', which does not run"),
        ({"methods": ["impurity"], "settings": {"impurity": {"threshold": -1}}}, "'threshold' = -1"),
        ({"methods": ["impurity"], "settings": {"impurity": {"filter": "sepia"}}}, "filter 'sepia'"),
        ({"knowledge": {"shoe_size": 43}}, "knowledge 'shoe_size'; expected one of"),
        ({"knowledge": {"poisoning_rate": 2}}, "poisoning_rate 2"),
        ({"knowledge": {"poisoning_rate": "some"}}, "poisoning_rate some; expected a number between 0 and 1"),
        ({"knowledge": {"poisoning_rate": float("nan")}}, "poisoning_rate nan; expected a number between 0 and 1"),
        ({"knowledge": {"target_class": 3}}, r"target_class 3; expected one of .* or 0\.\.2"),
        ({"knowledge": {"target_class": "fish"}}, r"target_class 'fish'; expected one of .* or 0\.\.2"),
        ({"knowledge": {"target_class": 1.5}}, r"target_class 1\.5; expected one of"),
        ({"knowledge": {"target_class": True}}, "target_class True; expected one of"),
        ({"knowledge": {"true_trigger": 1}}, "knowledge 'true_trigger', which no method that runs uses; methods: impu"),
        ({"methods": ["scan"], "knowledge": {"clean_images": [0]}}, "clean_images: 1 rows, fewer than two of any two"),
        ({"methods": ["impurity"], "settings": {"impurity": {"threshold": float("inf")}}}, "'threshold' = inf.*finite"),
    ],
)
def test_mistakes_are_one_clear_line(images: ImageSet, asked: dict[str, object], message: str) -> None:
    classifier = train(images, "two-layer", TrainSettings(epochs=1, batch=16))
    with pytest.raises(DoorwardError, match=message):
        cleanse(images, classifier, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_class_of_hardly_any_images_is_judged_beside_the_others(images: ImageSet, count: int) -> None:
    few = images.subset(np.flatnonzero((images.labels != 2) | (np.cumsum(images.labels == 2) <= count)))
    assert np.bincount(few.labels).tolist() == [20, 20, count]
    classifier = train(few, "two-layer", TrainSettings(epochs=1, batch=16))
    found = cleanse(few, classifier)
    told = found.record.methods["impurity"]
    assert sum(g.size for g in told.groups if g.label == 2) == count and told.class_scores[2] is not None


def test_folded_batch_norm_changes_no_observation_and_no_classifier(images: ImageSet) -> None:
    classifier = train(images, "resnet20", TrainSettings(epochs=1, batch=16))
    classifier.net.train()
    before = {name: tensor.clone() for name, tensor in classifier.net.state_dict().items()}
    seen = observe(images, classifier, batch=64)
    assert classifier.net.training and all(p.requires_grad for p in classifier.net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.net.state_dict().items())
    classifier.net.eval()
    with torch.inference_mode(), classifier.watching_features() as features:
        logits = classifier.logits(to_float(images.pixels))
    np.testing.assert_allclose(seen.logits, logits.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(seen.features, features[0].numpy(), rtol=1e-3, atol=1e-4)


def test_the_filter_follows_the_side_and_the_record_tells_it(tmp_path: Path) -> None:
    for side, looked in ((32, {"mean2"}), (48, {"mean2", "mean-24th", "mean-16th", "mean-12th"})):
        images = make_images(shape=(side, side, 3))
        classifier = train(images, "two-layer", TrainSettings(epochs=1, batch=16))
        (tmp_path / str(side)).mkdir()
        found = cleanse(images, classifier, ["impurity"], folder=tmp_path / str(side))
        used = found.record.methods["impurity"].settings["filter"]
        assert used in looked and found.record.methods["impurity"].settings["relative"] == (side == 48)
        assert found.observations is not None and set(found.observations.filtered_logits) == {used}


def test_one_filter_s_logits_are_those_of_the_pass_over_all_filters_to_the_bit() -> None:
    images = make_images(count=90, shape=(48, 48, 3))
    names = candidates("mean", 48)
    for arch in ("two-layer", "resnet20"):
        classifier = train(images, arch, TrainSettings(epochs=1, batch=16))
        some = images.subset(np.random.default_rng(0).permutation(90)[:70])
        seen = observe(some, classifier, names, seed=0)
        assert (observe(some, classifier, seed=0).logits == seen.logits).all()
        for name in names:
            assert (logits_under(some, classifier, name) == seen.filtered_logits[name]).all(), name
    with pytest.raises(DoorwardError, match="the classifier takes 3x48x48"):
        logits_under(make_images(), classifier, "mean2")


def test_observe_once_looks_again_only_for_something_new(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("doorward.cleansers.observe")
    looked: list[list[str]] = []
    original = module.observe

    def counted(*given: object, **more: object) -> object:
        looked.append(list(given[2]))  # type: ignore[call-overload]
        return original(*given, **more)

    monkeypatch.setattr(module, "observe", counted)
    classifier, look = train(images, "two-layer", TrainSettings(epochs=1, batch=16)), module.ObserveOnce()
    first = cleanse(images, classifier, ["impurity"], look=look)
    assert cleanse(images, classifier, ["spectral"], look=look).observations is first.observations
    assert looked == [["mean2"]], "what is there is not made again"
    cleanse(images, classifier, ["impurity"], settings={"impurity": {"filter": "mean3"}}, look=look)
    with torch.no_grad():
        next(classifier.net.parameters()).add_(1e-3)
    cleanse(images, classifier, ["spectral"], look=look)
    cleanse(images.subset(np.arange(40)), classifier, ["spectral"], look=look)
    assert looked[1:] == [["mean3"], [], []], "another filter, other weights, other images"


def test_knowledge_is_declared_in_the_outcome(images: ImageSet) -> None:
    classifier = train(images, "two-layer", TrainSettings(epochs=1, batch=16))
    blind = cleanse(images, classifier, ["spectral", "impurity"], knowledge={})
    told = cleanse(images, classifier, ["spectral", "impurity"], knowledge={"poisoning_rate": 0.1})
    assert blind.record.methods["spectral"].knowledge == ()
    assert (
        told.record.methods["spectral"].knowledge == ("poisoning_rate",)
        and told.record.methods["impurity"].knowledge == ()
    )


def test_one_pixel_backdoor_in_real_digits_is_found_and_removed(
    digits: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    lighten(monkeypatch)
    training, test = digits
    poisoned = attack(training, "pixel", rate=0.02, seed=21, settings={"size": 1.0, "row": 4, "column": 4})
    classifier = train(poisoned.images, "small-cnn", TRAINING, seed=21)
    assert asr(classifier, test, poisoned.attack).value > 0.9, "the attack must work before a defence is judged"
    found = cleanse_verb(poisoned.images, classifier, ["impurity"], seed=21)  # type: ignore[operator]
    flag, truth = found.suspicion("impurity").flag, poisoned.truth.poisoned
    assert flag[truth].mean() > 0.95 and flag[~truth].mean() < 0.01
    retrained = train(found.keep("impurity"), "small-cnn", TRAINING, seed=21)
    assert asr(retrained, test, poisoned.attack).value < 0.03


def test_a_result_is_the_same_after_the_disk_and_shows_its_pictures(
    digits: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    images = digits[0].portion(0.1, 0)
    found = cleanse(images, train(images, "two-layer", TrainSettings(epochs=3, batch=16)), ["impurity", "spectral"])
    found.save(tmp_path / "one")
    again = Cleansing.load(tmp_path / "one")
    assert again.record.judgement == found.record.judgement and again.findings == found.findings
    assert again.keep("spectral", images).hash == found.keep("spectral").hash
    for name in ("impurity", "spectral"):
        assert (again.samples.scores[name] == found.samples.scores[name]).all()
    again.save(tmp_path / "two")
    assert (tmp_path / "two" / "thumbnails.npy").read_bytes() == (tmp_path / "one" / "thumbnails.npy").read_bytes()
    assert again.report(tmp_path / "page.html").exists() and found.report(tmp_path / "other.html").exists()
    with pytest.raises(DoorwardError, match="read from a folder; expected the training set"):
        again.keep("spectral")
    manifest = json.loads((tmp_path / "one" / "run.json").read_text())
    (tmp_path / "one" / "run.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "schema"}))
    with pytest.raises(DoorwardError, match="schema 1, which doorward 0.1 reads; expected schema 2"):
        Cleansing.load(tmp_path / "one")
