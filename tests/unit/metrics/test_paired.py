from typing import Any

import numpy as np
import pytest

from unsee.metrics.paired import PairedSet, paired_difference

PEOPLE = [f"person {n // 4}" for n in range(40)]


def asked(base=1.0, reference=None, one: Any = 1.0, other: Any = 1.0, chance=0.0):
    def row(value):
        return np.full(40, value) if np.isscalar(value) else np.asarray(value, float)

    return PairedSet(
        PEOPLE,
        row(base),
        None if reference is None else row(reference),
        row(one),
        row(other),
        chance,
    )


def test_by_hand():
    forget = {"forget_seen": asked(reference=0.0, one=0.2, other=1.0)}
    keep = {"retain_unseen": asked(one=0.5, other=1.0), "general": asked(one=1.0, other=1.0)}
    found = paired_difference(forget, keep)
    forgotten, kept = 0.8, 2 / (1 / 0.5 + 1 / 1)
    # The other forgot nothing, so its score is 0.
    assert found.value == pytest.approx(2 * forgotten * kept / (forgotten + kept))
    assert found.low == pytest.approx(found.value)
    assert found.resolved


def test_the_same_method_twice_differs_by_nothing():
    row = np.arange(40) % 3 == 0
    forget = {"forget_seen": asked(reference=0.0, one=row, other=row)}
    found = paired_difference(forget, {"general": asked(one=~row, other=~row)})
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.resolved


def test_a_plain_loop_over_resampled_people_gives_the_same_interval():
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    forget = {"forget_seen": asked(reference=0.0, one=0.0, other=0.0)}
    keep = {"general": asked(one=one, other=other, chance=0.1)}
    found = paired_difference(forget, keep, resamples=400)

    def score(right, weights):
        share = np.clip((np.average(right, weights=weights) - 0.1) / 0.9, 1e-9, 1)
        return 2 * share / (1 + share)

    draws = np.random.default_rng(0)
    draws.multinomial(10, np.full(10, 0.1), 400)  # those of the forget set come first
    differences = []
    for counts in draws.multinomial(10, np.full(10, 0.1), 400):
        weights = np.repeat(counts, 4)
        differences.append(score(one, weights) - score(other, weights))
    assert [found.low, found.high] == pytest.approx(np.percentile(differences, (2.5, 97.5)))


def test_chance_is_taken_off_what_is_kept():
    forget = {"forget_seen": asked(reference=0.0, one=0.0, other=0.0)}
    at_chance = np.arange(40) % 2
    keep = {"general": asked(one=1.0, other=at_chance, chance=0.5)}
    assert paired_difference(forget, keep).value == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("forget", "keep"),
    [
        ({}, {"general": asked()}),
        ({"forget_seen": asked(reference=0.0)}, {}),
        ({"forget_seen": asked()}, {"general": asked()}),
    ],
)
def test_what_cannot_be_compared_is_refused(forget, keep):
    with pytest.raises(ValueError, match="expected"):
        paired_difference(forget, keep)
