import numpy as np
import pytest

from unsee.metrics.depth import absent_by_layer, unlearning_depth

NAN = float("nan")


def by_loop(gold, erased, threshold):
    """The formula as it is printed, a record."""
    shared = lacked = 0.0
    for s1, s2 in zip(gold, erased, strict=True):
        if s1 > threshold:
            shared += s1 * min(max(s2 / s1, 0.0), 1.0)
            lacked += s1
    return shared / lacked if lacked else NAN


def test_by_hand():
    # (0.1 * 1 + 0.5 * 0.5 + 1 * 0) / 1.6
    gold, erased = np.array([[0.1, 0.5, 1.0]]), np.array([[0.1, 0.25, 0.0]])
    assert unlearning_depth(gold, erased) == pytest.approx([0.21875])


def test_limits():
    gold = np.array([[0.2, 3.0], [0.2, 3.0], [0.2, 3.0]])
    erased = np.array([[0.2, 3.0], [0.0, 0.0], [9.0, -1.0]])
    # As one that never knew, as base, and beyond both ends.
    assert unlearning_depth(gold, erased) == pytest.approx([1.0, 0.0, 0.2 / 3.2])


def test_as_a_loop():
    rng = np.random.default_rng(0)
    gold, erased = rng.normal(0.2, 1.0, (2, 40, 5))
    expected = [by_loop(*rows, 0.3) for rows in zip(gold, erased, strict=True)]
    np.testing.assert_allclose(unlearning_depth(gold, erased, threshold=0.3), expected)


def test_layers_and_records_that_tell_nothing():
    gold = np.array([[0.05, -1.0], [NAN, NAN], [0.05, 0.4]])
    erased = np.array([[5.0, 5.0], [NAN, NAN], [5.0, 0.1]])
    np.testing.assert_allclose(unlearning_depth(gold, erased), [NAN, NAN, 0.25])


def test_by_layer_is_over_all_records():
    gold = np.array([[1.0, 0.01], [3.0, 0.0]])
    erased = np.array([[1.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(absent_by_layer(gold, erased), [0.25, NAN])
