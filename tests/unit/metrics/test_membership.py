import zlib

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unsee.metrics.membership import auc, lowest_mean, per_zlib_byte, told, tpr_at_fpr

MEMBER = np.array([True, True, False, False])


def test_lowest_tokens_by_hand():
    values = [-1.0, -4.0, -2.0, -3.0, -5.0]
    assert lowest_mean(values, 0.2) == -5.0
    # Rounded up: three tenths of five are two.
    assert lowest_mean(values, 0.3) == -4.5
    assert lowest_mean(values, 1.0) == np.mean(values)
    assert lowest_mean([-7.0], 0.01) == -7.0
    for values, share in (([], 0.2), ([1.0], 0.0), ([1.0], 1.5)):
        with pytest.raises(ValueError, match=r"expected values and a share in \(0, 1\]"):
            lowest_mean(values, share)


def test_packed_length_by_hand():
    assert per_zlib_byte(-2.0, "abc") == -2.0 / len(zlib.compress(b"abc"))
    # What repeats is easily guessed by anybody: the same probability of it tells less.
    assert per_zlib_byte(-2.0, "ab" * 20) < per_zlib_byte(-2.0, "The quick brown fox jumps over it")


def test_auc_by_hand_and_by_a_library():
    assert auc(MEMBER, np.array([4.0, 1.0, 3.0, 2.0])) == 0.5
    assert auc(MEMBER, np.array([4.0, 3.0, 3.0, 2.0])) == 0.875
    rng = np.random.default_rng(0)
    member = rng.random(60) < 0.4
    scores = np.round(rng.normal(size=60) + member, 1)
    assert auc(member, scores) == pytest.approx(roc_auc_score(member, scores))


def test_scores_that_tell_all_or_nothing():
    assert auc(MEMBER, np.array([2.0, 2.0, 1.0, 1.0])) == 1.0
    assert auc(MEMBER, np.zeros(4)) == 0.5
    assert tpr_at_fpr(MEMBER, np.array([2.0, 2.0, 1.0, 1.0])) == 1.0
    assert tpr_at_fpr(MEMBER, np.zeros(4)) == 0.0


def test_true_positives_at_few_false_ones():
    others = np.arange(100.0)
    inside = np.array([98.5, 99.5, 50.0])
    member = np.array([True] * 3 + [False] * 100)
    scores = np.concatenate([inside, others])
    # One in a hundred may pass: 99 does, and so does what is above 98.
    assert tpr_at_fpr(member, scores, 0.01) == pytest.approx(2 / 3)
    assert tpr_at_fpr(member, scores, 0.0) == pytest.approx(1 / 3)
    assert tpr_at_fpr(member, scores, 1.0) == 1.0


def test_the_best_score_counts_whichever_way_round():
    subjects = ["a", "b", "a", "b"]
    apart = np.array([1.0, 1.0, 2.0, 2.0])
    found = told(MEMBER, {"flat": np.zeros(4), "turned": apart}, subjects)
    assert found.value == 1.0
    assert told(MEMBER, {"flat": np.zeros(4)}, subjects).value == 0.5


def test_resampling_is_that_of_a_slow_loop():
    rng = np.random.default_rng(1)
    subjects = [f"p{n % 4}" for n in range(24)]
    member = np.arange(24) < 12
    scores = {"one": rng.normal(size=24) + member, "two": rng.normal(size=24)}
    found = told(member, scores, subjects, seed=3, resamples=20)
    drawn = np.random.default_rng(3).multinomial(4, np.full(4, 0.25), size=20)
    for counts, value in zip(drawn, found.resampled, strict=True):
        rows = [r for r in range(24) for _ in range(counts[int(subjects[r][1])])]
        areas = [auc(member[rows], own[rows]) for own in scores.values()]
        assert value == pytest.approx(max(max(a, 1 - a) for a in areas))
    assert found.low <= found.value <= found.high


def test_one_kind_alone_tells_nothing():
    with pytest.raises(ValueError, match="expected members and others, got 4 of 4 members"):
        auc(np.ones(4, dtype=bool), np.zeros(4))
    with pytest.raises(ValueError, match="expected at least one score, got none"):
        told(MEMBER, {}, ["a"] * 4)
