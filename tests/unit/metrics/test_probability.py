import math

import numpy as np
import pytest

from unsee.metrics.probability import answer_probability, truth_ratio, truth_ratio_of


def test_answer_probability_by_hand():
    # Two tokens of 0.5 and 0.02: the geometric mean is 0.1.
    logprob = math.log(0.5) + math.log(0.02)
    np.testing.assert_allclose(answer_probability([logprob, 0.0], [2, 5]), [0.1, 1.0])


def test_answer_probability_does_not_favour_short_answers():
    short, long = answer_probability([math.log(0.3), 7 * math.log(0.3)], [1, 7])
    assert short == pytest.approx(long)


def test_answer_without_tokens():
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        answer_probability([0.0, -1.0], [0, 1])


def test_truth_ratio_by_hand():
    # R = mean(0.1, 0.3) / 0.6 = 1 / 3, and 1 / (1 + R) = 3 / 4.
    assert truth_ratio(math.log(0.6), [math.log(0.1), math.log(0.3)]) == pytest.approx(0.75)


def test_truth_ratio_limits():
    assert truth_ratio(-2.0, [-2.0, -2.0]) == pytest.approx(0.5)
    assert truth_ratio(0.0, [-1000.0]) == pytest.approx(1.0)
    assert truth_ratio(-1000.0, [0.0]) == pytest.approx(0.0)
    assert truth_ratio(-2000.0, [-2000.0]) == pytest.approx(0.5)


def test_truth_ratio_needs_a_wrong_answer():
    with pytest.raises(ValueError, match="at least one answer, got none"):
        truth_ratio(-1.0, [])


def test_like_slow_loops():
    rng = np.random.default_rng(0)
    for _ in range(20):
        true, *wrong = (-rng.uniform(0, 3, 4)).tolist()
        likely = [math.exp(value) for value in wrong]
        ratio = sum(likely) / len(likely) / math.exp(true)
        assert truth_ratio(true, wrong) == pytest.approx(1 / (1 + ratio))
        product = math.prod(likely) ** (1 / len(likely))
        assert truth_ratio_of(true, wrong) == pytest.approx(product / math.exp(true))
        tokens = np.log(rng.uniform(0.01, 1, 5)).tolist()
        total = 1.0
        for token in tokens:
            total *= math.exp(token)
        assert answer_probability([sum(tokens)], [5])[0] == pytest.approx(total ** (1 / 5))


def test_the_ratio_itself():
    # Cross-entropies of 2 and 3 beside 1: exp(-1.5).
    assert truth_ratio_of(-1.0, [-2.0, -3.0]) == pytest.approx(0.2231, abs=1e-4)
    assert truth_ratio_of(-2.0, [-2.0]) == 1
    assert truth_ratio_of(0.0, [-2000.0]) == 0
    assert truth_ratio_of(-2000.0, [0.0]) == math.inf
    with pytest.raises(ValueError, match="at least one answer, got none"):
        truth_ratio_of(-1.0, [])
