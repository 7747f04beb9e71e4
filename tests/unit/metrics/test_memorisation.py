import numpy as np
import pytest

from unsee.metrics.memorisation import exact_memorisation, extraction_strength


def test_by_hand():
    # Right, wrong, right, right, right: four of five, and the last three from two given ones.
    said, true = [5, 9, 7, 8, 2], [5, 6, 7, 8, 2]
    assert exact_memorisation(said, true) == pytest.approx(0.8)
    assert extraction_strength(said, true) == pytest.approx(0.6)


def test_limits():
    assert exact_memorisation([1, 2], [1, 2]) == extraction_strength([1, 2], [1, 2]) == 1
    assert exact_memorisation([2, 1], [1, 2]) == extraction_strength([2, 1], [1, 2]) == 0


def test_a_wrong_last_token_is_no_strength_at_all():
    """OpenUnlearning gives 1/T here: 1 for a wrong answer of one token, and 1/3."""
    assert extraction_strength([4], [5]) == 0
    assert extraction_strength([1, 2, 9], [1, 2, 3]) == 0
    assert extraction_strength([9, 9, 3], [1, 2, 3]) == pytest.approx(1 / 3)


def test_like_a_slow_loop():
    rng = np.random.default_rng(0)
    for _ in range(200):
        true = rng.integers(0, 3, rng.integers(1, 8)).tolist()
        said = rng.integers(0, 3, len(true)).tolist()
        length = len(true)
        given = next(k for k in range(length + 1) if said[k:] == true[k:])
        assert extraction_strength(said, true) == pytest.approx(1 - given / length)
        hits = sum(a == b for a, b in zip(said, true, strict=True))
        assert exact_memorisation(said, true) == pytest.approx(hits / length)


@pytest.mark.parametrize("score", [exact_memorisation, extraction_strength])
@pytest.mark.parametrize(("said", "true"), [([], []), ([1], [1, 2]), ([[1]], [[1]])])
def test_what_is_no_answer(score, said, true):
    with pytest.raises(ValueError, match="expected one prediction for each of at least one token"):
        score(said, true)
