import numpy as np
import pytest

from unsee.metrics.recovery import (
    above_gold,
    at_budget,
    average_gain,
    base_kept,
    hidden_recovered,
    power,
)

NAN = float("nan")


def test_success_at_a_budget_is_that_of_any_try():
    tries = np.array([[1, 0, NAN, 0], [0, 0, NAN, NAN], [0, 0, NAN, 1]])
    assert at_budget(tries).tolist()[:2] == [1, 0]
    assert np.isnan(at_budget(tries)[2])
    assert at_budget(tries)[3] == 1
    with pytest.raises(ValueError, match="at least one try a record, got shape"):
        at_budget(np.zeros((0, 3)))


def test_more_tries_never_find_less():
    tries = np.random.default_rng(0).integers(0, 2, (5, 40)).astype(float)
    found = [at_budget(tries[: n + 1]).mean() for n in range(5)]
    assert found == sorted(found)


def test_above_gold_by_hand():
    """Two people of two questions: differences 1, 1 and 0, -1; their means 1 and -0.5."""
    erased, gold = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])
    found = above_gold(erased, gold, ["a", "a", "b", "b"])
    assert (found.value, found.n, found.by) == (0.25, 4, "subject")
    assert (found.low, found.high) == (-0.5, 1.0)


def test_what_was_not_asked_does_not_count():
    erased, gold = np.array([1.0, NAN, 1.0]), np.array([0.0, NAN, 0.0])
    assert above_gold(erased, gold, ["a", "b", "c"]).n == 2
    with pytest.raises(ValueError, match="asked the same records"):
        above_gold(erased, np.zeros(3), ["a", "b", "c"])


def test_gold_under_its_own_attack_is_at_zero():
    gold = np.array([0.0, 1.0, 1.0, 0.0])
    found = above_gold(gold, gold, ["a", "a", "b", "b"])
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_shares_kept_and_recovered():
    assert base_kept(0.45, 0.9) == 0.5
    assert base_kept(1.0, 0.9) == 1
    assert base_kept(0.5, 0.0) is None
    assert hidden_recovered((0.1, 0.5)) == pytest.approx(0.4)
    assert hidden_recovered((0.1, 0.5), (0.0, 0.3)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("kept", "recovered", "shown", "why"),
    [
        (0.8, 0.2, True, "brings back 20 points"),
        (0.9 - 0.1, 0.5 - 0.3, True, "brings back 20 points"),
        (0.79, 0.9, False, "keeps 79 % of its right answers, and 80 % are needed"),
        (0.9, 0.19, False, "brings back 19 points of a control that merely hides, and 20 are"),
        (0.9, None, None, "no control"),
        (0.5, None, False, "keeps 50 %"),
        (None, 0.9, False, "knows nothing"),
    ],
)
def test_power_needs_a_base_that_keeps_and_a_control_that_comes_back(kept, recovered, shown, why):
    found, reason = power(kept, recovered)
    assert found is shown
    assert why in reason


def test_average_gain_by_hand():
    # Two tries on three records: one brings back two of three, the other all; gold learns one.
    erased = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    gold = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    before, gold_before = np.array([0.0, 1.0, 0.0]), np.zeros(3)
    found = average_gain(erased, before, gold, gold_before, ["a", "b", "c"])
    assert found.by_try == pytest.approx((1 / 3, 1 / 3))
    assert found.mean.value == pytest.approx(1 / 3)


def test_who_learns_like_gold_gains_nothing_and_who_gains_all_gains_one():
    gold = np.array([[1.0, 0.0], [1.0, 1.0]])
    found = average_gain(gold, np.zeros(2), gold, np.zeros(2), ["a", "b"])
    assert (found.mean.value, found.mean.low, found.mean.high) == (0.0, 0.0, 0.0)
    all_ = average_gain(np.ones((2, 2)), np.zeros(2), np.zeros((2, 2)), np.zeros(2), ["a", "b"])
    assert all_.mean.value == 1.0


def test_gain_is_that_of_a_slow_loop_where_tries_ask_about_others():
    rng = np.random.default_rng(0)
    people = ["a", "b", "c", "a"]
    erased, gold = (rng.integers(0, 2, (3, 4)).astype(float) for _ in range(2))
    before, gold_before = (rng.integers(0, 2, 4).astype(float) for _ in range(2))
    for t, row in ((0, 0), (0, 3), (1, 1)):
        erased[t, row] = gold[t, row] = np.nan
    found = average_gain(erased, before, gold, gold_before, people)
    means = []
    for t in range(3):
        gains = [
            (erased[t, r] - before[r]) - (gold[t, r] - gold_before[r])
            for r in range(4)
            if not np.isnan(erased[t, r])
        ]
        means.append(sum(gains) / len(gains))
    assert found.by_try == pytest.approx(means)
    assert found.mean.value == pytest.approx(sum(means) / 3)


def test_gain_of_what_was_not_asked_alike():
    one = np.array([[1.0, np.nan]])
    for erased, gold in ((one, np.ones((1, 2))), (np.full((1, 2), np.nan),) * 2):
        with pytest.raises(ValueError, match="expected tries that ask something"):
            average_gain(erased, np.zeros(2), gold, np.zeros(2), ["a", "b"])
