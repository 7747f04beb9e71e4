import itertools

import pytest

from unsee.metrics.reliability import (
    faithfulness,
    quantisation_stability,
    relearning_stability,
    reliability,
)


def test_values_by_hand():
    # Of six pairs five are in order, and one is a tie.
    assert faithfulness([0.9, 0.8, 0.4], [0.1, 0.4]) == pytest.approx(5.5 / 6)
    assert quantisation_stability(0.2, 0.6) == pytest.approx(0.5)
    assert relearning_stability(0.8, 0.2) == pytest.approx(0.25)
    # 2 / (1 / 0.5 + 1 / 0.25) = 1/3, and 2 / (3 + 1 / 1).
    assert reliability(1.0, 0.5, 0.25) == pytest.approx((1 / 3, 0.5))


def test_limits_of_the_definition():
    """A metric that cannot tell is at 1/2, and one that nothing moves at 1."""
    assert faithfulness([0.3, 0.3], [0.3]) == 0.5
    assert faithfulness([0.1], [0.9]) == 0.0
    assert quantisation_stability(0.3, 0.3) == relearning_stability(0.0, 0.4) == 1.0
    assert quantisation_stability(0.5, 0.2) == relearning_stability(0.1, 0.4) == 1.0
    assert reliability(1.0, 1.0, 1.0) == (1.0, 1.0)


def test_a_slow_loop_over_pairs_says_the_same():
    know, never = [0.7, 0.2, 0.9, 0.5], [0.5, 0.6, 0.1]
    wins = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(know, never)]
    assert faithfulness(know, never) == pytest.approx(sum(wins) / len(wins))


def test_edges():
    assert quantisation_stability(1.0, 1.0) == 1.0
    assert quantisation_stability(0.0, 1.0) == 0.0
    assert relearning_stability(0.5, -0.1) == 0.0
    assert relearning_stability(-0.2, -0.5) == 1.0
    assert reliability(0.0, 0.5, 0.5) == (0.5, 0.0)
    with pytest.raises(ValueError, match="expected"):
        faithfulness([], [0.5])
