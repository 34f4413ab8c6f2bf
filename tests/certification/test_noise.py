"""The noise is exactly that of equation 2, and a trial's noise depends on (seed, j) alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chi2

from doorward.certification.smoothing import noise
from doorward.certification.smoothing.noise import FlipNoise, Noise, dyadic, flips, shifts, words
from doorward.core.errors import DoorwardError


def p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    """Of Pearson's chi-square test."""
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(chi2.sf(statistic, len(counts) - 1))


@pytest.mark.parametrize("domain", [2, 10, 256])
@pytest.mark.parametrize("keep", ["0.6", "0.8", "0.95"])
def test_shifts_follow_equation_2(domain: int, keep: str) -> None:
    law = FlipNoise.of(keep, domain)
    drawn = shifts(law, 1, noise.TRAIN, 0, 40, 25_000)
    counts = np.bincount(drawn.ravel(), minlength=domain)
    assert len(counts) == domain
    beta = float(law.keep)
    expected = np.full(domain, (1 - beta) / (domain - 1))
    expected[0] = beta
    assert p_value(counts, expected * drawn.size) > 1e-4


@pytest.mark.parametrize("keep", ["0.6", "0.75", "0.8", "0.95", "0.9"])
def test_fast_binary_flips_follow_equation_2_to_the_last_bits(keep: str) -> None:
    law = FlipNoise.of(keep)
    drawn = flips(law, 5, noise.TRAIN, 0, 100, 100_000)
    ones, size = int(drawn.sum()), drawn.size
    assert set(np.unique(drawn)) <= {0, 1}
    assert p_value(np.array([size - ones, ones]), np.array([float(law.keep), 1 - float(law.keep)]) * size) > 1e-4


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_ties_are_decided_by_the_low_bits(quarters: int) -> None:
    """1 - beta = (25 + q/4) / 256: a share q/4 of the bytes that tie with the threshold flips, no more and no less."""
    drawn = flips(FlipNoise(1 - Fraction(100 + quarters, 1024)), 5, noise.TRAIN, 0, 200, 50_000)
    ones = int(drawn.sum())
    for rate in range(100, 105):
        expected = np.array([1024 - rate, rate]) / 1024 * drawn.size
        assert (p_value(np.array([drawn.size - ones, ones]), expected) > 1e-4) == (rate == 100 + quarters)


def test_the_comparison_is_exact_to_the_last_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 2^32 numbers that a cell can draw, exactly beta 2^32 keep it: tried at the border itself."""
    law = FlipNoise.of("0.9", 2)
    border = law.keep_units
    near = np.array([0, border - 1, border, border + 1, (1 << 32) - 1], dtype=np.uint64)

    def drawn(values: np.ndarray) -> None:
        monkeypatch.setattr(noise, "words", lambda *_: values.reshape(1, -1))

    drawn(near << np.uint64(32))
    assert shifts(law, 0, noise.LABELS, 0, 1, 5).tolist() == [[0, 0, 1, 1, 1]]
    border = (1 << 32) - law.keep_units  # the fast way compares with 1 - beta
    near = np.array([0, border - 1, border, border + 1, (1 << 32) - 1], dtype=np.uint64)
    monkeypatch.setattr(noise, "spare_words", lambda *arguments: near[arguments[5] * 0 + tied] & np.uint64(0xFFFFFF))
    tied = np.flatnonzero(near >> np.uint64(24) == border >> 24)
    drawn((near >> np.uint64(24)).astype(np.uint8).repeat([1, 1, 1, 1, 4]).view(np.uint64))
    assert flips(law, 0, noise.TRAIN, 0, 1, 5).tolist() == [[1, 1, 0, 0, 0]]


def test_numbers_beyond_the_last_whole_multiple_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """65536 = 9 * 7281 + 7: the last seven numbers would favour seven of the nine other values."""
    low = ([65528, 65529, 65535, 5], [1, 65530, 3, 4], [7, 8, 7, 7])

    def words(seed: int, stream: int, start: int, stop: int, size: int, attempt: int = 0) -> np.ndarray:
        return np.array([low[attempt]], np.uint64) | np.uint64(0xFFFFFFFF << 32)

    monkeypatch.setattr(noise, "words", words)
    drawn = shifts(FlipNoise.of("0.9", 10), 0, noise.LABELS, 0, 1, 4)
    assert drawn.tolist() == [[65528 % 9 + 1, 8 % 9 + 1, 3 % 9 + 1, 5 % 9 + 1]]


def test_more_spare_words_than_usual_are_fresh_ones() -> None:
    """Every cell needs one: each gets a word of its own, the first 'usual' ones those that they always get."""
    cells = 4096
    usual = cells // 128 + 64
    drawn = noise.spare_words(9, noise.TRAIN, 10, 13, cells, np.repeat(np.arange(3), [cells, 5, cells]))
    few = noise.spare_words(9, noise.TRAIN, 10, 13, cells, np.repeat(np.arange(3), [5, 5, 5]))
    assert np.array_equal(drawn[:5], few[:5]) and np.array_equal(drawn[cells : cells + 5], few[5:10])
    assert len(np.unique(drawn)) == len(drawn) and len(drawn) > 3 * usual


def test_cells_are_independent_of_their_neighbours() -> None:
    drawn = flips(FlipNoise.of("0.8"), 2, noise.TRAIN, 0, 64, 10_000).astype(np.int64)
    for left, right in ((drawn[:, :-1], drawn[:, 1:]), (drawn[:, :-8], drawn[:, 8:]), (drawn[:-1], drawn[1:])):
        counts = np.bincount((2 * left + right).ravel(), minlength=4)
        expected = np.array([0.64, 0.16, 0.16, 0.04]) * left.size
        assert p_value(counts, expected) > 1e-4


@pytest.mark.parametrize("cells", [1, 7, 64, 100, 785])
@pytest.mark.parametrize("domain", [2, 10])
def test_a_trial_is_the_same_in_any_block(cells: int, domain: int) -> None:
    law = FlipNoise.of("0.7", domain)
    draw = flips if domain == 2 else shifts
    whole = draw(law, 4, noise.TEST, 0, 50, cells)
    for start, stop in ((0, 1), (13, 14), (7, 29), (49, 50)):
        assert np.array_equal(draw(law, 4, noise.TEST, start, stop, cells), whole[start:stop])


def test_streams_and_seeds_and_trials_differ() -> None:
    seen = {
        words(seed, stream, trial, trial + 1, 8).tobytes()
        for seed in (0, 1, (1 << 64) - 1)
        for stream in (noise.TRAIN, noise.LABELS, noise.TEST, (noise.SPARE << 8) + noise.TRAIN)
        for trial in (0, 1, 10**9)
    }
    assert len(seen) == 36


def test_words_are_philox_4x64_10() -> None:
    """The known answer of Random123 (kat_vectors) for the counter and key of all ones."""
    largest = np.uint64((1 << 64) - 1)
    generator = np.random.Philox(key=np.array([largest, largest]), counter=np.array([largest - 1, *[largest] * 3]))
    assert [hex(int(w)) for w in generator.random_raw(4)] == [
        "0x87b092c3013fe90b",
        "0x438c3c67be8d0224",
        "0x9cc7d7c69cd777b6",
        "0xa09caebf594f0ba0",
    ]


def test_beta_is_rounded_to_a_dyadic_rational_and_nothing_else() -> None:
    assert dyadic(0.75) == Fraction(3, 4)
    nine_tenths = dyadic(0.9)
    assert nine_tenths.denominator & (nine_tenths.denominator - 1) == 0
    assert abs(nine_tenths - Fraction(9, 10)) <= Fraction(1, 1 << 33)
    assert dyadic("0.9") == dyadic(Fraction(9, 10)) == nine_tenths
    with pytest.raises(DoorwardError, match="multiple of 2\\^-32"):
        FlipNoise(Fraction(9, 10))


@pytest.mark.parametrize(("keep", "domain"), [(0.5, 2), (0.2, 2), (1, 2), (1.5, 2), (0.1, 10), (-1, 2), (1 - 1e-12, 2)])
def test_too_much_and_too_little_noise_is_refused(keep: float, domain: int) -> None:
    with pytest.raises(DoorwardError, match="keep probability"):
        FlipNoise.of(keep, domain)


@pytest.mark.parametrize("bad", ["nonsense", "nan", "1/0"])
def test_a_keep_probability_that_is_no_number_is_refused(bad: str) -> None:
    with pytest.raises(DoorwardError, match="keep probability"):
        dyadic(bad)


def test_bad_domains_and_seeds_are_refused() -> None:
    with pytest.raises(DoorwardError, match="domain size 1"):
        FlipNoise.of(0.9, 1)
    with pytest.raises(DoorwardError, match="seed -1"):
        noise.check_seed(-1)
    with pytest.raises(DoorwardError, match="expected 2"):
        flips(FlipNoise.of(0.9, 3), 0, 1, 0, 1, 4)


def test_each_block_may_have_its_own_noise() -> None:
    law = Noise.of("0.9", classes=10, domain=256, keep_labels="0.75", keep_test="0.8")
    assert (law.train.domain, law.labels.domain, law.test.domain) == (256, 10, 256)
    assert law.labels.keep == Fraction(3, 4)
    assert law.json()["labels"] == {"keep_numerator": 3, "keep_denominator": 4, "domain": 10}
