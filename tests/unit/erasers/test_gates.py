"""Gates by hand, at their limits, against the d x d form and slow loops, and at the edges."""

import math
from statistics import NormalDist

import pytest
import torch

from unsee.erasers.gates import (
    TAIL,
    ceiling,
    cross_fitted,
    logistic_gate,
    rank_one_gate,
    share_of_each,
    threshold,
    unit_rms,
)


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def published(forget, retain, **more):
    return rank_one_gate(forget.T @ forget, forget.sum(0), retain.T @ retain, **more)


def test_a_published_gate_by_hand():
    """Retain lies along x, so the gate reads along y: (2 * 2 + 1)^-1 * 2."""
    forget = torch.tensor([[3.0, 2.0]])
    retain = torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    w = published(forget, retain, energy=0.5, ridge=1.0)
    torch.testing.assert_close(w, torch.tensor([0.0, 0.4], dtype=torch.float64))


def test_the_published_gate_is_the_paper_s_matrix_times_the_direction():
    """W = P D of the released code, d x d with a pseudo-inverse, is w r^T."""
    width, energy, ridge = 12, 0.5, 0.3
    forget, retain, r = drawn(7, width), drawn(40, width, seed=1), drawn(width, seed=2)
    retain = retain * torch.linspace(3, 0.01, width, dtype=torch.float64)
    _, _, right = torch.linalg.svd(retain.T @ retain)
    low = right[width - int(width * energy) :].T
    p = low @ low.T
    x = forget @ p
    d = torch.linalg.pinv(x.T @ x + ridge * p.T @ p) @ x.T @ r.expand(7, width)
    w = published(forget, retain, energy=energy, ridge=ridge)
    torch.testing.assert_close(torch.outer(w, r), p @ d, atol=1e-10, rtol=0)
    state = drawn(5, width, seed=3)
    torch.testing.assert_close((state @ w)[:, None] * r, state @ (p @ d), atol=1e-10, rtol=0)


def test_without_ridge_the_published_gate_is_one_on_few_forget_states():
    """Fewer forget states than directions: interpolated; retain states have no energy there."""
    forget, retain = drawn(4, 16), drawn(30, 16, seed=1)
    retain[:, 8:] = 0
    w = published(forget, retain, energy=0.5, ridge=1e-9)
    torch.testing.assert_close(forget @ w, torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(retain @ w, torch.zeros(30, dtype=torch.float64))


def test_the_published_gate_solves_its_ridge_problem_step_by_step():
    """Gradient descent in plain Python on sum (h . Qv - 1)^2 + ridge |v|^2 ends at the same w."""
    forget, retain = drawn(5, 4), drawn(20, 4, seed=1)
    _, directions = torch.linalg.eigh(retain.T @ retain)
    low = directions[:, :2].tolist()
    v = [0.0, 0.0]
    for _ in range(3000):
        slope = [2 * 0.5 * each for each in v]
        for row in forget.tolist():
            along = [sum(row[i] * low[i][k] for i in range(4)) for k in range(2)]
            miss = along[0] * v[0] + along[1] * v[1] - 1
            slope = [slope[k] + 2 * miss * along[k] for k in range(2)]
        v = [v[k] - 0.01 * slope[k] for k in range(2)]
    expected = [low[i][0] * v[0] + low[i][1] * v[1] for i in range(4)]
    w = published(forget, retain, energy=0.5, ridge=0.5)
    torch.testing.assert_close(w, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_at_least_one_direction_is_read():
    forget, retain = drawn(3, 5), drawn(9, 5, seed=1)
    w = published(forget, retain, energy=0.01, ridge=1.0)
    _, directions = torch.linalg.eigh(retain.T @ retain)
    assert abs(torch.dot(w / w.norm(), directions[:, 0]).item()) == pytest.approx(1)


def test_a_logistic_gate_by_hand():
    """Two states at +-1: by symmetry b = 0, and sigma(-w) / 1 = 2 ridge w on standardised states.

    Mean 0 and deviation 1 leave the states as they are; the loss is log(1 + e^-w) + ridge w^2 / 2.
    """
    w, b = logistic_gate(
        torch.tensor([[1.0]]), torch.tensor([[-1.0]]), torch.tensor([1.0]), ridge=0.1
    )
    assert b.item() == pytest.approx(0, abs=1e-9)
    assert 1 / (1 + math.exp(w.item())) == pytest.approx(0.1 * w.item(), abs=1e-9)


def test_with_a_strong_penalty_only_the_bias_is_left_and_both_sides_are_even():
    forget, keep = drawn(6, 3) + 1, drawn(50, 3, seed=1)
    w, b = logistic_gate(forget, keep, torch.ones(50), ridge=1e9)
    assert w.abs().max() < 1e-6
    assert b.item() == pytest.approx(0, abs=1e-5)


def test_the_logistic_gate_agrees_with_gradient_descent_in_plain_python():
    forget, keep = (drawn(4, 2) + 1.5).tolist(), drawn(6, 2, seed=1).tolist()
    weights = [1.0, 2.0, 1.0, 0.5, 1.0, 0.5]
    rows = [(x, 1, 0.5 / 4) for x in forget]
    rows += [(x, 0, 0.5 * c / sum(weights)) for x, c in zip(keep, weights, strict=True)]
    mean = [sum(c * x[k] for x, _, c in rows) for k in range(2)]
    scale = [math.sqrt(sum(c * (x[k] - mean[k]) ** 2 for x, _, c in rows)) for k in range(2)]
    v = [0.0, 0.0, 0.0]
    for _ in range(4000):
        slope = [0.05 * v[0], 0.05 * v[1], 0.0]
        for x, fires, c in rows:
            z = [(x[k] - mean[k]) / scale[k] for k in range(2)]
            chance = 1 / (1 + math.exp(-(v[0] * z[0] + v[1] * z[1] + v[2])))
            for k, part in enumerate((*z, 1.0)):
                slope[k] += c * (chance - fires) * part
        v = [v[k] - slope[k] for k in range(3)]
    w, b = logistic_gate(
        torch.tensor(forget), torch.tensor(keep), torch.tensor(weights), ridge=0.05
    )
    expected = torch.tensor([v[0] / scale[0], v[1] / scale[1]], dtype=torch.float64)
    torch.testing.assert_close(w, expected, atol=1e-6, rtol=1e-5)
    bias = v[2] - mean[0] * expected[0].item() - mean[1] * expected[1].item()
    assert b.item() == pytest.approx(bias, abs=1e-5)


def test_separable_and_constant_states_stay_finite():
    forget, keep = torch.tensor([[5.0, 1.0]]), torch.tensor([[-5.0, 1.0], [-6.0, 1.0]])
    w, b = logistic_gate(forget, keep, torch.ones(2), ridge=1e-3)
    assert w.isfinite().all()
    assert b.isfinite()
    assert (forget.double() @ w + b).item() > 0 > (keep.double() @ w + b).max().item()


def test_keep_states_of_weight_zero_do_not_count():
    forget, keep = drawn(5, 3) + 1, drawn(8, 3, seed=1)
    weights = torch.tensor([1.0] * 5 + [0.0] * 3)
    with_zero = logistic_gate(forget, keep, weights, ridge=0.1)
    without = logistic_gate(forget, keep[:5], weights[:5], ridge=0.1)
    torch.testing.assert_close(with_zero, without)


def test_fewer_rows_than_weights_give_the_same_gate():
    """Every row written twice is the same problem, which is then solved on the weights."""
    forget, keep, weights = drawn(8, 40) + 0.5, drawn(22, 40, seed=1), drawn(22, seed=2).abs()
    for ridge in (1e-3, 0.2, 10.0):
        on_rows = logistic_gate(forget, keep, weights, ridge=ridge)
        on_weights = logistic_gate(
            torch.cat([forget, forget]), keep.repeat(2, 1), weights.repeat(2), ridge=ridge
        )
        torch.testing.assert_close(on_rows, on_weights, atol=1e-10, rtol=1e-9)


def test_of_few_rows_those_of_weight_zero_and_twins_do_not_count():
    forget, keep = drawn(5, 30) + 1, drawn(8, 30, seed=1)
    without = logistic_gate(forget, keep[:5], torch.ones(5), ridge=0.1)
    weights = torch.tensor([1.0] * 5 + [0.0] * 3)
    torch.testing.assert_close(logistic_gate(forget, keep, weights, ridge=0.1), without)
    twins = torch.cat([keep[:5], keep[:1]])
    weights = torch.tensor([0.5, 1.0, 1.0, 1.0, 1.0, 0.5])
    torch.testing.assert_close(logistic_gate(forget, twins, weights, ridge=0.1), without)


def test_of_few_rows_the_bias_goes_free_and_the_weights_are_penalised():
    """At the optimum both sides' residuals balance, and ridge v is what the rows pull together."""
    forget, keep, weights = drawn(4, 20), drawn(9, 20, seed=1), drawn(9, seed=2).abs()
    w, b = logistic_gate(forget, keep, weights, ridge=0.3)
    states = torch.cat([forget, keep])
    share = torch.cat([torch.full((4,), 0.125).double(), 0.5 * weights / weights.sum()])
    residual = share * ((states @ w + b).sigmoid() - torch.tensor([1.0] * 4 + [0.0] * 9))
    assert residual.sum().item() == pytest.approx(0, abs=1e-9)
    mean = share @ states
    scale = (share @ (states - mean).square()).sqrt()
    pulled = -((states - mean) / scale).T @ residual / 0.3
    torch.testing.assert_close(w * scale, pulled, atol=1e-8, rtol=1e-6)


def test_a_threshold_within_the_scores_is_their_quantile():
    scores = torch.arange(101.0)
    assert threshold(scores, 0.1) == pytest.approx(90)
    assert threshold(scores, 0.4) == pytest.approx(60)


def test_a_threshold_beyond_the_scores_by_hand():
    """The highest 2 of 20, 10 and 12, lie at 18.5 / 20 and 19.5 / 20 of a normal distribution."""
    scores = torch.cat([torch.linspace(0, 9, 18), torch.tensor([10.0, 12.0])])
    at = NormalDist().inv_cdf
    low, high = at(18.5 / 20), at(19.5 / 20)
    expected = 10 + 2 * (at(0.999) - low) / (high - low)
    assert threshold(scores, 0.001) == pytest.approx(expected)


def test_the_tail_s_line_agrees_with_least_squares_in_plain_python():
    scores = drawn(200).sort().values
    high = scores[180:].tolist()
    at = [NormalDist().inv_cdf((180 + place + 0.5) / 200) for place in range(20)]
    slope, level = 0.0, 0.0
    for _ in range(20000):
        misses = [level + slope * (x - 2) - y for x, y in zip(at, high, strict=True)]
        slope -= 0.1 * sum(m * (x - 2) for m, x in zip(misses, at, strict=True)) / 20
        level -= 0.1 * sum(misses) / 20
    expected = level + slope * (NormalDist().inv_cdf(0.9999) - 2)
    assert threshold(scores, 1e-4) == pytest.approx(expected, abs=1e-6)


def test_thresholds_rise_as_fewer_may_fire():
    scores = drawn(400).sort().values
    rates = (0.3, 0.2, TAIL, 0.02, 1e-3, 1e-5, 1e-7)
    found = [threshold(scores, rate) for rate in rates]
    assert found == sorted(found)
    assert len(set(found)) == len(found)


def test_a_normal_tail_is_read_off_right():
    even = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    scores = 3 * torch.special.ndtri(even) + 1
    for rate in (1e-3, 1e-4, 1e-6):
        wanted = 3 * NormalDist().inv_cdf(1 - rate) + 1
        assert threshold(scores, rate) == pytest.approx(wanted, rel=1e-3)


def test_lighter_tails_fire_less_than_asked_for_never_more():
    even = (torch.arange(5000) + 0.5) / 5000
    for rate in (1e-3, 1e-4, 1e-6):
        assert threshold(even, rate) > 1 - rate


def test_a_threshold_beyond_the_tail_is_not_below_it():
    """One score far out bends the line; the rate of the tail itself is never exceeded."""
    scores = torch.cat([torch.arange(99.0), torch.tensor([1000.0])])
    for rate in (0.099, 0.08, 0.06):
        assert threshold(scores, rate) >= scores[90].item()


@pytest.mark.parametrize("scores", [[1.0], [1.0, 1.0, 1.0]])
def test_a_single_or_constant_score_is_its_own_threshold(scores):
    assert threshold(torch.tensor(scores), 0.0025) == 1.0


def test_the_rates_of_independent_gates_add_up():
    for subjects in (1, 10, 1000):
        each = share_of_each(0.0025, subjects)
        assert 1 - (1 - each) ** subjects == pytest.approx(0.0025)
    assert share_of_each(0.0025, 1) == pytest.approx(0.0025)


def test_states_at_unit_root_mean_square_by_hand():
    states = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    expected = torch.tensor([[[3 / math.sqrt(12.5), 4 / math.sqrt(12.5)], [0.0, 0.0]]])
    torch.testing.assert_close(unit_rms(states), expected)
    torch.testing.assert_close(unit_rms(7 * states), expected)
    assert torch.equal(unit_rms(states)[:, :1], unit_rms(states[:, :1]))


def test_scores_are_those_of_gates_that_had_not_seen_the_fold():
    forget, keep = drawn(5, 3) + 1, drawn(9, 3, seed=1)
    weights = drawn(9, seed=2).abs()
    forget_folds = torch.tensor([0, 0, 1, 2, 1])
    keep_folds = torch.tensor([0, 2, 2, 1, 0, 1, 1, 2, 0])

    def held_out(state, fold):
        mine = [at for at in range(5) if forget_folds[at] != fold]
        others = [at for at in range(9) if keep_folds[at] != fold]
        w, b = logistic_gate(forget[mine], keep[others], weights[others], ridge=0.1)
        return sum(w[k].item() * state[k].item() for k in range(3)) + b.item()

    expected = [
        torch.tensor(sorted(held_out(s, f) for s, f in zip(side, folds, strict=True))).double()
        for side, folds in ((forget, forget_folds), (keep, keep_folds))
    ]
    w, b, *scores = cross_fitted(forget, keep, weights, forget_folds, keep_folds, ridge=0.1)
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close((w, b), logistic_gate(forget, keep, weights, ridge=0.1))


def test_a_side_of_one_fold_stays_in_the_gate_that_scores_it():
    forget, keep = drawn(4, 3) + 1, drawn(6, 3, seed=1)
    one, two = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 0, 1, 1, 1])
    _, _, scores, _ = cross_fitted(forget, keep, torch.ones(6), one, two, ridge=0.1)
    w, b = logistic_gate(forget, keep[3:], torch.ones(3), ridge=0.1)
    torch.testing.assert_close(scores, (forget @ w + b).sort().values)
    _, _, _, scores = cross_fitted(forget, keep, torch.ones(6), one, two * 0, ridge=0.1)
    w, b = logistic_gate(forget, keep, torch.ones(6), ridge=0.1)
    torch.testing.assert_close(scores, (keep @ w + b).sort().values)


def test_a_ceiling_by_hand_and_never_where_keeping_is_likelier():
    """Three quarters of 1, 2, 3, 4, 5 lie at 2 or above."""
    assert ceiling(torch.arange(1.0, 6)) == pytest.approx(2)
    assert ceiling(torch.arange(1.0, 6) - 3) == 0
    assert ceiling(torch.tensor([-1.0])) == 0
