"""Learners: the batched path against plain ones, one trial at a time, on the same noise."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from worlds import small_task

from doorward.certification.smoothing import counts
from doorward.certification.smoothing.counts import CountSampler, distributions
from doorward.certification.smoothing.learners.two_layer import TwoLayer, initial_weights
from doorward.certification.smoothing.montecarlo import Learner, smooth
from doorward.certification.smoothing.noise import FlipNoise, Noise
from doorward.certification.smoothing.parts import linear
from doorward.certification.smoothing.parts.adapters import EstimatorLearner, NoSettings, TorchLearner
from doorward.certification.smoothing.task import NoisyBlock, SmoothingTask
from doorward.core import methods
from doorward.core.errors import DoorwardError

Votes = NDArray[np.uint8]
WORLDS = [(2, 2), (3, 2), (2, 5), (3, 256)]  # classes, values per pixel


def block(task: SmoothingTask, trials: int = 40) -> NoisyBlock:
    return NoisyBlock(task, 11, 5, 5 + trials)


def predicted(name: str, of: NoisyBlock, **settings: object) -> Votes:
    method = methods.get("certify", name)
    votes = method.function(of, method.configure(settings))
    assert votes.shape == (len(of), len(of.task.tests)) and votes.dtype == np.uint8
    return votes


def one_by_one(of: NoisyBlock, train: Callable[[Votes, NDArray[np.int64]], Callable[[Votes], Votes]]) -> Votes:
    """Train on each noisy training set and predict the noisy test images, one trial after another."""
    return np.stack([train(of.pixels[i], of.labels[i])(of.tests(i)) for i in range(len(of))])


def plain_two_layer(of: NoisyBlock, settings: TwoLayer) -> Votes:
    """Ordinary PyTorch: modules, autograd, SGD on all images at once."""
    votes = []
    for trial in range(len(of)):
        this = NoisyBlock(of.task, of.seed, of.start + trial, of.start + trial + 1)
        start = initial_weights(this, settings)
        first = nn.Linear(start.first.shape[2], settings.hidden)
        net = nn.Sequential(first, nn.ReLU(), nn.Linear(settings.hidden, of.task.classes))
        initial = (start.first, start.first_bias, start.second, start.second_bias)
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), initial, strict=True):
                parameter.copy_(value[0])
        top = of.task.domain - 1
        pixels = torch.from_numpy(of.pixels[trial]).float() * 2 / top - 1
        tests = torch.from_numpy(of.tests(trial)).float() * 2 / top - 1
        optimiser = torch.optim.SGD(net.parameters(), lr=settings.learning_rate)
        for _ in range(settings.steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(pixels - pixels.mean(0)), torch.from_numpy(of.labels[trial])).backward()
            optimiser.step()
        with torch.no_grad():
            votes.append(net(tests - pixels.mean(0)).argmax(1).numpy())
    return np.stack(votes).astype(np.uint8)


@pytest.mark.parametrize(("classes", "domain"), WORLDS)
@pytest.mark.parametrize("images", [24, 90])  # fewer images than pixels: in their span; more: ordinary steps
def test_two_layer_agrees_with_plain_pytorch_vote_by_vote(classes: int, domain: int, images: int) -> None:
    of = block(small_task(classes, domain, images=images, keep=0.75))
    settings = TwoLayer(hidden=24, steps=12, learning_rate=0.2, init=1.0)
    batched = predicted("two-layer", of, **settings.model_dump())
    assert np.array_equal(batched, plain_two_layer(of, settings))
    assert len(np.unique(batched)) == classes
    other = predicted("two-layer", of, **{**settings.model_dump(), "steps": 2})
    assert not np.array_equal(batched, other)


@pytest.mark.parametrize(("classes", "domain"), WORLDS)
def test_nearest_centroid_agrees_with_plain_distances(classes: int, domain: int) -> None:
    def train(pixels: Votes, labels: NDArray[np.int64]) -> Callable[[Votes], NDArray[np.float64]]:
        centres = np.stack([pixels[labels == c].mean(axis=0) for c in range(classes)])
        return lambda tests: ((tests[:, None] - centres) ** 2.0).sum(axis=2) / (domain - 1) ** 2

    of = block(small_task(classes, domain, keep=0.75))
    distances = one_by_one(of, train)
    batched = predicted("nearest-centroid", of, draw_counts=False)
    nearest = np.sort(distances, axis=2)
    clear = nearest[:, :, 1] - nearest[:, :, 0] > 0.01
    assert clear.mean() > 0.95 and np.array_equal(batched[clear], distances.argmin(axis=2)[clear])
    assert np.array_equal(predicted("nearest-centroid", of, draw_counts=True), batched) == (domain != 2)


@pytest.mark.parametrize("classes", [2, 3])
def test_naive_bayes_agrees_with_scikit_learn(classes: int) -> None:
    of = block(small_task(classes, keep=0.75))
    plain = one_by_one(of, lambda pixels, labels: BernoulliNB(alpha=1.0).fit(pixels, labels).predict)
    assert (predicted("naive-bayes", of, draw_counts=False) != plain).mean() < 0.01


@pytest.mark.parametrize(("classes", "domain"), WORLDS)
@pytest.mark.parametrize("images", [24, 90])
def test_ridge_agrees_with_the_normal_equations(classes: int, domain: int, images: int) -> None:
    def train(pixels: Votes, labels: NDArray[np.int64]) -> Callable[[Votes], Votes]:
        def inputs(cells: Votes) -> NDArray[np.float64]:
            return np.hstack([cells * 2.0 / (domain - 1) - 1, np.ones((len(cells), 1))])

        x, y = inputs(pixels), 2.0 * np.eye(classes)[labels] - 1
        weights = np.linalg.solve(x.T @ x + 0.5 * pixels.shape[1] * np.eye(x.shape[1]), x.T @ y)
        return lambda tests: (inputs(tests) @ weights).argmax(axis=1).astype(np.uint8)

    of = block(small_task(classes, domain, images=images, keep=0.75))
    assert (predicted("ridge", of, penalty=0.5) != one_by_one(of, train)).mean() < 0.002


def test_a_class_that_noise_emptied_is_never_predicted() -> None:
    noise = Noise.of(0.9, classes=3)
    task = SmoothingTask(
        np.eye(4, dtype=np.uint8), np.array([1, 1, 2, 2]), np.eye(4, dtype=np.uint8), 3, noise, (1, 2, 2)
    )
    of = block(task, 200)
    empty = of.class_sizes == 0
    assert empty[:, 0].sum() > 50
    for name in ("nearest-centroid", "naive-bayes"):
        votes = predicted(name, of)
        assert not any(empty[trial, label] for trial, row in enumerate(votes) for label in row)


@pytest.mark.parametrize("domain", [2, 6])
@pytest.mark.parametrize("size", [1000, 1 << 30])  # float32 and float64
def test_linear_scores_are_exact(domain: int, size: int) -> None:
    of = block(small_task(3, domain), 9)
    rng = np.random.default_rng(0)
    weights = rng.integers(-size, size, (9, 3, 64)).astype(np.float64)
    bias = rng.integers(-size, size, (9, 3)).astype(np.float64)
    for classes in (2, 3):
        exact = np.stack([of.tests(t).astype(object) @ weights[t, :classes].T.astype(int) for t in range(9)])
        best = (exact + bias[:, None, :classes].astype(int)).argmax(axis=2)
        assert np.array_equal(linear.predict(of, weights[:, :classes], bias[:, :classes]), best)


def test_a_tie_goes_to_the_lowest_class() -> None:
    of = block(small_task(3), 2)
    assert (linear.predict(of, np.zeros((2, 3, 64)), np.zeros((2, 3))) == 0).all()
    assert (linear.predict(of, np.zeros((2, 3, 64)), np.array([[0.0, 1.0, 1.0]] * 2)) == 1).all()


# Counts drawn from their own distribution


@pytest.mark.parametrize("n", [1, 2, 5])
def test_count_distributions_by_enumeration(n: int) -> None:
    keep = FlipNoise.of("0.8").keep
    for k, weights in enumerate(distributions(n, keep)):
        expected = [Fraction(0)] * (n + 1)
        for flipped in product([0, 1], repeat=n):
            ones = sum((cell < k) ^ flip for cell, flip in enumerate(flipped))
            expected[ones] += keep ** (n - sum(flipped)) * (1 - keep) ** sum(flipped)
        assert [Fraction(w, 1 << (32 * n)) for w in weights] == expected


def test_count_distribution_without_a_one_is_binomial() -> None:
    keep = FlipNoise.of("0.9").keep
    weights = next(distributions(60, keep))
    expected = [comb(60, s) * (1 - keep) ** s * keep ** (60 - s) for s in range(61)]
    assert [Fraction(w, 1 << (32 * 60)) for w in weights] == expected and sum(expected) == 1


@pytest.mark.parametrize(("guide_bits", "more_bits"), [(12, 64), (3, 4), (1, 1)])
@pytest.mark.parametrize(("n", "k"), [(0, 0), (1, 1), (9, 4), (50, 30), (127, 5)])
def test_drawn_counts_have_that_distribution(guide_bits: int, more_bits: int, n: int, k: int) -> None:
    """With few bits most draws go the slow ways; all must give the same distribution."""
    keep = FlipNoise.of("0.8").keep
    trials, cells = (100, 500) if more_bits == 64 else (10, 100)
    sampler = CountSampler(keep, guide_bits, more_bits)
    of_both = np.broadcast_to(np.array([n, 3]), (trials, 2))
    ones = np.broadcast_to(np.array([k, 1])[:, None], (trials, 2, cells)).astype(np.int32)
    drawn = sampler.draw(of_both, ones, 3, 20, 20 + trials)
    for column, size, holding in ((0, n, k), (1, 3, 1)):
        weights = np.array([float(Fraction(w, 1 << (32 * size))) for w in list(distributions(size, keep))[holding]])
        expected, found = weights * trials * cells, np.bincount(drawn[:, column].ravel(), minlength=size + 1)
        often = expected >= 5
        expected = np.append(expected[often], max(expected[~often].sum(), 1e-9))
        found = np.append(found[often], found[~often].sum())
        statistic = ((found - expected) ** 2 / np.maximum(expected, 1)).sum()
        assert chi2.sf(statistic, max(1, len(expected) - 1)) > 1e-4
    for start, stop in ((20, 21), (23, 29)):
        part = sampler.draw(of_both[: stop - start], ones[: stop - start], 3, start, stop)
        assert np.array_equal(part, drawn[start - 20 : stop - 20])


def test_every_way_of_settling_a_count_agrees_with_the_exact_number() -> None:
    """The count is the number of cumulative probabilities that the drawn number reaches."""
    keep = FlipNoise.of("0.7").keep
    cumulative = np.cumsum([Fraction(w, 1 << (32 * 7)) for w in list(distributions(7, keep))[4]])
    sampler = CountSampler(keep, 4, 6)
    sampler._add(7)
    for first, more in product(range(16), range(64)):
        low, high = Fraction(first * 64 + more, 1024), Fraction(first * 64 + more + 1, 1024)
        surely, perhaps = sum(c <= low for c in cumulative), sum(c < high for c in cumulative)
        guide = int(sampler._guide[4, first])
        if guide < 128:
            assert guide == surely == perhaps
        else:
            row, top, next_bits = np.array([4], np.int32), np.array([first], np.uint16), np.array([more], np.uint64)
            count, open_ = sampler._settle(row, top, next_bits, np.array([guide ^ 128], np.uint8))
            assert open_[0] == (surely != perhaps) or count[0] == surely
            if not open_[0]:
                assert count[0] == surely == perhaps


def test_a_number_at_a_cumulative_probability_itself_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = FlipNoise.of("0.8").keep
    border = next(iter(list(distributions(1, keep))[1])) << (76 - 32)  # P(no one is left of one 1), to 76 bits
    for known, others, count in ((border, 0, 1), (border - 1, (1 << 64) - 1, 0)):
        monkeypatch.setattr(counts, "words", lambda *_, others=others: np.array([[others]], np.uint64))
        assert CountSampler(keep)._exact(1, 1, known, 0, 0, 0) == count


def test_votes_by_drawn_counts_and_by_drawn_images_have_one_distribution() -> None:
    """Two-sample chi-square of the votes of every test image, both ways, 4,000 trials each."""
    task = small_task(images=12, tests=8, keep=0.7)
    ways = [
        smooth(task, Learner.named("nearest-centroid", {"draw_counts": drawn}), 4000, seed).counts
        for drawn, seed in ((True, 1), (False, 2))
    ]
    share = (ways[0] + ways[1]) / 8000
    statistic = sum(((way - 4000 * share) ** 2 / np.maximum(4000 * share, 1)).sum() for way in ways)
    assert 0.001 < share.min() < 0.4
    assert chi2.sf(statistic, len(task.tests)) > 1e-3


def test_smoothed_probabilities_of_a_tiny_world_are_reached() -> None:
    """2 images of 2 pixels: every noise vector enumerated gives the exact probability; votes must agree with it."""
    images = np.array([[0, 0], [1, 1]], dtype=np.uint8)
    labels, test, keep = np.array([0, 1]), np.array([0, 1], dtype=np.uint8), 0.75
    exact = np.zeros(2)
    for flips in product([0, 1], repeat=8):
        pixels, noisy, x = images ^ np.reshape(flips[:4], (2, 2)), labels ^ np.array(flips[4:6]), test ^ flips[6:]
        chance = keep ** (8 - sum(flips)) * (1 - keep) ** sum(flips)
        centres = [pixels[noisy == c].mean(axis=0) if (noisy == c).any() else np.full(2, np.inf) for c in (0, 1)]
        distance = [((x - centre) ** 2).sum() for centre in centres]
        exact[int(distance[1] < distance[0])] += chance
    task = SmoothingTask(images, labels, test[None], 2, Noise.of(keep, classes=2), (1, 1, 2))
    for drawn in (True, False):
        votes = smooth(task, Learner.named("nearest-centroid", {"draw_counts": drawn}), 20_000, 4).counts[0]
        deviation = (votes[1] - 20_000 * exact[1]) / np.sqrt(20_000 * exact[0] * exact[1])
        assert abs(deviation) < 4


# Adapters


def test_a_named_scikit_learn_classifier_is_trained_per_trial() -> None:
    of = block(small_task(3, images=30), 6)
    plain = one_by_one(of, lambda pixels, labels: LogisticRegression(C=0.5).fit(pixels, labels).predict)
    assert (predicted("sklearn", of, estimator="LogisticRegression", params={"C": 0.5}) == plain).mean() > 0.99
    plain = one_by_one(of, lambda pixels, labels: KNeighborsClassifier(5).fit(pixels, labels).predict)
    assert np.array_equal(EstimatorLearner(KNeighborsClassifier(5))(of, NoSettings()), plain)


def test_a_random_estimator_repeats_and_a_single_class_is_predicted() -> None:
    task = small_task(images=20)
    which = Learner.named("sklearn", {"estimator": "RandomForestClassifier", "params": {"n_estimators": 3}})
    first = smooth(task, which, 8, 1, batch=8).counts
    assert np.array_equal(first, smooth(task, which, 8, 1, batch=3).counts)
    one = SmoothingTask(task.images[:1], task.labels[:1], task.tests, 2, task.noise, task.shape)
    of = block(one, 6)
    assert np.array_equal(predicted("sklearn", of), np.repeat(of.labels, len(task.tests), axis=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"estimator": "Oracle"}, "no classifier 'Oracle'"), ({"params": {"wheels": 4}}, "wheels")],
)
def test_an_unknown_estimator_or_argument_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(DoorwardError, match=message):
        predicted("sklearn", block(small_task(), 1), **settings)


def test_any_torch_net_and_training_function() -> None:
    def train(images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> nn.Module:
        assert images.shape == (24, 1, 8, 8) and images.max() == 1
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Dropout(0.2), nn.Linear(72, 2))
        with torch.no_grad():
            net[0].weight.uniform_(-1, 1, generator=generator)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        with torch.enable_grad():
            for _ in range(5):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(images), labels).backward()
                optimiser.step()
        return net.eval()

    task = small_task()
    mine = Learner("small net", NoSettings(), TorchLearner(train))
    first = smooth(task, mine, 10, 1, batch=10).counts
    torch.manual_seed(0)
    assert np.array_equal(first, smooth(task, mine, 10, 1, batch=3).counts)
    assert not np.array_equal(first, smooth(task, mine, 10, 2).counts)


def test_a_predictor_that_answers_nonsense_is_refused() -> None:
    mine = TorchLearner(lambda images, labels, generator: lambda tests: torch.full((len(tests),), 7))
    with pytest.raises(DoorwardError, match="labels from 7 to 7"):
        mine(block(small_task(), 1), NoSettings())


def test_naive_bayes_refuses_grey_pixels_and_deterministic_methods_are_no_learners() -> None:
    with pytest.raises(DoorwardError, match="5 values per pixel"):
        predicted("naive-bayes", block(small_task(domain=5), 1))
    with pytest.raises(DoorwardError, match="setting 'steps'"):
        Learner.named("two-layer", {"steps": -1})
