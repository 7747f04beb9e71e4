import numpy as np
import pytest

from unsee.metrics.readout import (
    candidates,
    guessed,
    head_projection,
    probability_delta,
    second_difference,
)

# One record, three layers, three answers.
CHANCES = np.array([[[0.1, 0.2, 0.0], [0.6, 0.2, 0.1], [0.0, 0.3, 0.3]]])


def test_by_hand():
    assert head_projection(CHANCES)[0] == pytest.approx([0.6, 0.3, 0.3])
    # Taken away counts like added.
    assert probability_delta(CHANCES)[0] == pytest.approx([0.6, 0.1, 0.2])
    assert second_difference(CHANCES)[0] == pytest.approx([1.1, 0.1, 0.1])


def test_a_slow_loop_says_the_same():
    chances = np.random.default_rng(0).random((4, 5, 6))
    for row, (head, delta, second) in enumerate(
        zip(
            head_projection(chances),
            probability_delta(chances),
            second_difference(chances),
            strict=True,
        )
    ):
        for answer in range(6):
            d = [float(chances[row, layer, answer]) for layer in range(5)]
            assert head[answer] == pytest.approx(max(d))
            assert delta[answer] == pytest.approx(max(abs(d[i + 1] - d[i]) for i in range(4)))
            bends = [abs(d[i + 2] - 2 * d[i + 1] + d[i]) for i in range(3)]
            assert second[answer] == pytest.approx(max(bends))


def test_what_does_not_change_from_layer_to_layer_gives_nothing_away():
    flat = np.broadcast_to(np.array([0.7, 0.2, 0.1]), (2, 4, 3))
    assert not probability_delta(flat).any()
    assert not second_difference(flat).any()
    assert head_projection(flat)[1] == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize("budget", [1, 2, 3, 9])
def test_as_many_are_guessed_as_the_budget_allows_and_no_more(budget):
    # All alike: the first ones, not all of them.
    scores = np.zeros((2, 5))
    assert candidates(scores, budget).tolist() == [list(range(min(budget, 5)))] * 2
    right = np.array([0, 3])
    assert guessed(scores, right, budget).tolist() == [1.0, float(budget > 3)]


def test_the_best_come_first():
    assert candidates(np.array([[0.1, 0.5, 0.5, 0.9]]), 3).tolist() == [[3, 1, 2]]


@pytest.mark.parametrize(("function", "layers"), [(probability_delta, 1), (second_difference, 2)])
def test_too_few_layers_or_guesses(function, layers):
    with pytest.raises(ValueError, match=f"expected more than {layers} layers, got {layers}"):
        function(np.zeros((1, layers, 2)))
    with pytest.raises(ValueError, match="budget must be at least 1, got 0"):
        candidates(np.zeros((1, 2)), 0)
