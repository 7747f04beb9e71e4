import math

import numpy as np
import pytest

from unsee.metrics.distributions import (
    JS_BINS,
    distance_interval,
    js_distance,
    ks_p_value,
    ks_statistic,
)

ALL = (js_distance, ks_p_value, ks_statistic)


def test_ks_by_hand():
    # Below 2.5: all of the one, one of four of the other.
    assert ks_statistic([0.0, 1.0, 2.0], [1.5, 3.0, 4.0, 5.0]) == pytest.approx(0.75)


def test_js_by_hand():
    # Three of four and one of four in the outer bins, against the reverse.
    one, other = [0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert js_distance(one, other) == pytest.approx(math.sqrt(divergence))


def test_limits():
    rng = np.random.default_rng(0)
    same = rng.normal(size=300)
    assert (ks_statistic(same, same), ks_p_value(same, same), js_distance(same, same)) == (0, 1, 0)
    apart = same + 100
    assert ks_statistic(same, apart) == 1
    assert ks_p_value(same, apart) < 1e-50
    assert js_distance(same, apart) == pytest.approx(math.sqrt(math.log(2)))
    assert js_distance([1.0, 1.0], [1.0]) == 0


def test_like_slow_loops():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=40), rng.normal(0.5, 1, size=55)
    gaps = [
        abs(sum(x <= at for x in one) / 40 - sum(x <= at for x in other) / 55)
        for at in (*one, *other)
    ]
    assert ks_statistic(one, other) == pytest.approx(max(gaps))
    low, high = min(*one, *other), max(*one, *other)

    def shares(values):
        bins = [0.0] * JS_BINS
        for value in values:
            place = int((value - low) / (high - low) * JS_BINS)
            bins[min(place, JS_BINS - 1)] += 1 / len(values)
        return bins

    total = 0.0
    for p, q in zip(shares(one), shares(other), strict=True):
        middle = (p + q) / 2
        total += sum(x * math.log(x / middle) / 2 for x in (p, q) if x)
    assert js_distance(one, other) == pytest.approx(math.sqrt(total))


def test_the_p_value_shrinks_with_the_number_of_samples():
    few, many = np.linspace(0, 1, 20), np.linspace(0, 1, 400)
    assert ks_p_value(few, few + 0.15) > 0.5
    assert ks_p_value(many, many + 0.15) < 0.001


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize("broken", [[], [float("nan")], [float("inf")], [[1.0]]])
def test_what_is_no_sample(score, broken):
    for pair in ((broken, [1.0]), ([1.0], broken)):
        with pytest.raises(ValueError, match="expected at least one finite score"):
            score(*pair)


PEOPLE = [name for name in "abcdefgh" for _ in range(5)]


def test_the_interval_of_a_distance_holds_it_and_is_seeded():
    rng = np.random.default_rng(1)
    one, other = rng.random(40), rng.random(40) + 0.3
    found = distance_interval(ks_statistic, one, PEOPLE, other, PEOPLE, seed=3)
    assert found["value"] == ks_statistic(one, other)
    assert found["ci"][0] <= found["value"] <= found["ci"][1]
    assert found["ci"][1] - found["ci"][0] > 0.05
    assert found["n"] == 40
    assert found == distance_interval(ks_statistic, one, PEOPLE, other, PEOPLE, seed=3)
    assert found != distance_interval(ks_statistic, one, PEOPLE, other, PEOPLE, seed=4)


def test_a_model_lies_nowhere_apart_from_itself():
    one = np.random.default_rng(1).random(40)
    for measure in (ks_statistic, js_distance):
        found = distance_interval(measure, one, PEOPLE, one, PEOPLE)
        assert (found["value"], found["ci"]) == (0.0, [0.0, 0.0])


def test_people_are_resampled_not_questions():
    """One person apart: in a third of draws nobody of that person comes up."""
    one = np.array([1.0] * 5 + [0.0] * 35)
    found = distance_interval(ks_statistic, one, PEOPLE, np.zeros(40), PEOPLE, resamples=400)
    assert found["value"] == pytest.approx(1 / 8)
    assert found["ci"][0] == 0.0
    assert found["ci"][1] == pytest.approx(3 / 8)
