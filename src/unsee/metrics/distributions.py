"""How far the scores of one model are from those of another, as distributions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

JS_BINS = 50


def ks_statistic(scores: ArrayLike, reference: ArrayLike) -> float:
    """Two-sample Kolmogorov-Smirnov statistic: the largest gap of the distribution functions.

    Args:
        scores: A score a sample, (sample,).
        reference: The same of the model to compare with, or of other samples, (other,).

    Returns:
        0..1; 0 if both are distributed alike.

    Raises:
        ValueError: If either is empty, or holds what is no number.
    """
    found: Any = ks_2samp(*_samples(scores, reference))
    return float(found.statistic)


def ks_p_value(scores: ArrayLike, reference: ArrayLike) -> float:
    """p-value of the same test: TOFU's and CLEAR's forget quality, on truth ratios.

    Maini et al. 2024, https://arxiv.org/abs/2401.06121. It shrinks with the number of samples:
    values of splits of different sizes cannot be compared.

    Args:
        scores: Of the model after forgetting, (sample,).
        reference: Of the model that never knew, (other,).

    Returns:
        0..1; above 0.05 the test cannot tell the two apart.

    Raises:
        ValueError: If either is empty, or holds what is no number.
    """
    found: Any = ks_2samp(*_samples(scores, reference))
    return float(found.pvalue)


def js_distance(scores: ArrayLike, reference: ArrayLike, bins: int = JS_BINS) -> float:
    """Jensen-Shannon distance of two histograms over the range of both, natural logarithm.

    Args:
        scores: A score a sample, (sample,).
        reference: The same of the model to compare with, or of other samples, (other,).
        bins: Bins of equal width.

    Returns:
        0..sqrt(ln 2), which is 0.83: the square root of the divergence.

    Raises:
        ValueError: If either is empty, or holds what is no number.
    """
    one, other = _samples(scores, reference)
    shared = (min(one.min(), other.min()), max(one.max(), other.max()))
    counts, others = (np.histogram(values, bins=bins, range=shared)[0] for values in (one, other))
    # Not a number where rounding makes the divergence of equal histograms negative.
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(jensenshannon(counts, others)))


def distance_interval(
    measure: Callable[[ArrayLike, ArrayLike], float],
    scores: ArrayLike,
    subjects: Sequence[str],
    reference: ArrayLike,
    reference_subjects: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 200,
) -> dict[str, Any]:
    """A distance with a 95 % percentile interval; people are resampled, the same in both.

    Resampled distributions differ even where the true ones do not, so an interval of distances
    lies a little high, and its lower end says little about no difference at all.

    Args:
        measure: `ks_statistic` or `js_distance`.
        scores: A score a sample, (sample,).
        subjects: Whom each is about, (sample,).
        reference: Scores to compare with, (other,).
        reference_subjects: Whom each of those is about, (other,).
        seed: Of the resampling.
        resamples: Number of resampled distances.

    Returns:
        `value`, `ci`, `n` (samples of the first) and `chance`, which is None.
    """
    one, other = _samples(scores, reference)
    people = sorted({*subjects, *reference_subjects})
    rows = {
        name: (
            np.flatnonzero(np.asarray(subjects) == name),
            np.flatnonzero(np.asarray(reference_subjects) == name),
        )
        for name in people
    }
    value = measure(one, other)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = [people[place] for place in generator.integers(len(people), size=len(people))]
        left, right = (np.concatenate([rows[name][side] for name in chosen]) for side in (0, 1))
        # People of one side alone may not come up.
        if len(left) and len(right):
            drawn.append(measure(one[left], other[right]))
    low, high = np.percentile(drawn, (2.5, 97.5)) if drawn else (value, value)
    return {
        "value": value,
        "ci": [min(float(low), value), max(float(high), value)],
        "n": len(one),
        "chance": None,
    }


def _samples(
    scores: ArrayLike, reference: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(scores, np.float64), np.asarray(reference, np.float64)
    for values in (one, other):
        if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
            raise ValueError(f"expected at least one finite score, got {values}")
    return one, other
