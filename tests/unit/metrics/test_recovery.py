import numpy as np
import pytest

from unsee.metrics.recovery import above_gold, at_budget, base_kept, hidden_recovered, power

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
