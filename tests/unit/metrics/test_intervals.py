import numpy as np
import pytest

from unsee.metrics import intervals
from unsee.metrics.intervals import mean_interval, paired_difference


def test_two_people_by_hand():
    # Person a scores 1 throughout, b 0: a resample holds two a's, one each, or two b's with
    # probabilities 1/4, 1/2, 1/4, so the percentiles are 0 and 1.
    found = mean_interval([1, 1, 0, 0], ["a", "a", "b", "b"])
    assert (found.value, found.low, found.high) == (0.5, 0, 1)
    assert (found.n, found.by) == (4, "subject")


def test_standard_error_is_that_of_people_not_of_answers():
    rng = np.random.default_rng(1)
    people = rng.normal(0.5, 0.1, 100)
    values = np.repeat(people, 20)
    subjects = [str(number) for number in range(100) for _ in range(20)]
    found = mean_interval(values, subjects)
    expected = 1.96 * people.std() / np.sqrt(100)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)


def test_people_count_by_their_answers():
    found = mean_interval([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert found.value == 0.75
    # Resamples are 1, 3/4 or 0, never 1/2.
    assert (found.low, found.high) == (0, 1)


def test_slow_loop_gives_the_same_interval():
    values = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0.5])
    subjects = list("aabbbcddd")
    rng = np.random.default_rng(7)
    means = []
    for _ in range(4000):
        drawn = rng.choice(list("abcd"), size=4)
        pooled = [v for d in drawn for v, s in zip(values, subjects, strict=True) if s == d]
        means.append(np.mean(pooled))
    found = mean_interval(values, subjects)
    low, high = np.percentile(means, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_one_subject_resamples_records_and_says_so():
    found = mean_interval([0, 1] * 50, ["a"] * 100)
    assert found.by == "record"
    assert found.low == pytest.approx(0.5 - 0.098, abs=0.02)
    assert found.high == pytest.approx(0.5 + 0.098, abs=0.02)


def test_same_seed_same_interval_and_pieces_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    values, subjects = rng.random(300), [str(number % 30) for number in range(300)]
    first = mean_interval(values, subjects, seed=3)
    assert mean_interval(values, subjects, seed=3) == first
    assert mean_interval(values, subjects, seed=4) != first
    monkeypatch.setattr(intervals, "_CELLS_AT_ONCE", 1000)
    assert mean_interval(values, subjects, seed=3) == first


def test_equal_values_have_no_width():
    found = mean_interval([0.1] * 9, list("aaabbbccc"))
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    assert found.low <= found.value <= found.high


def test_paired_difference_removes_what_people_share():
    rng = np.random.default_rng(2)
    subjects = [str(number) for number in range(40)]
    easy = rng.random(40)
    found = paired_difference(easy + 0.01, easy, subjects)
    assert found.value == pytest.approx(0.01)
    assert found.low > 0
    apart = mean_interval(easy, subjects)
    assert apart.high - apart.low > 10 * (found.high - found.low)


def test_lists_that_do_not_match():
    with pytest.raises(ValueError, match="one subject for each"):
        mean_interval([1, 0], ["a"])
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="expected aligned scores"):
        paired_difference([1], [1, 0], ["a"])
