"""Means with 95 % intervals, resampled by person, since answers about one person hang together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
_LEVEL = (2.5, 97.5)
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        value: Mean over the samples.
        low: 2.5th percentile of the resampled means.
        high: 97.5th percentile.
        n: Number of samples.
        by: What was resampled: "subject", or "record" where there are fewer than two subjects,
            which leaves out how people differ and so is too narrow.
    """

    value: float
    low: float
    high: float
    n: int
    by: Literal["subject", "record"]


def mean_interval(
    values: ArrayLike, subjects: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Mean of the values with a percentile bootstrap over subjects.

    Where all values are alike the interval is that value, however few they are.

    Args:
        values: One score a sample, (sample,).
        subjects: Whom each sample is about, (sample,).
        seed: Of the resampling.
        resamples: Number of resampled means.

    Raises:
        ValueError: If there are no values, or not one subject a value.
    """
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim != 1 or len(samples) == 0 or len(samples) != len(subjects):
        raise ValueError(
            f"expected one subject for each of at least one value, got {samples.shape} values "
            f"and {len(subjects)} subjects"
        )
    _, group = np.unique(np.asarray(subjects), return_inverse=True)
    by: Literal["subject", "record"] = "subject"
    if group.max() == 0:
        by, group = "record", np.arange(len(samples))
    totals = np.bincount(group, weights=samples).astype(np.float64)
    counts = np.bincount(group).astype(np.int64)
    means = np.concatenate(list(_resampled_means(totals, counts, seed, resamples)))
    low, high = np.percentile(means, _LEVEL)
    value = float(samples.mean())
    # Rounding in the two sums may put an end a last digit on the wrong side of the mean.
    return Interval(value, min(float(low), value), max(float(high), value), len(samples), by)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    subjects: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean of first - second over the same samples, with a bootstrap over subjects.

    Args:
        first: One score a sample, (sample,).
        second: The other model's scores of the same samples in the same order, (sample,).
        subjects: Whom each sample is about, (sample,).
        seed: Of the resampling.
        resamples: Number of resampled differences.

    Raises:
        ValueError: If the lists differ in length or are empty.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"expected aligned scores, got {one.shape} and {other.shape}")
    return mean_interval(one - other, subjects, seed=seed, resamples=resamples)


def _resampled_means(
    totals: NDArray[np.float64], counts: NDArray[np.int64], seed: int, resamples: int
) -> Iterator[NDArray[np.float64]]:
    """Means of resampled groups, in pieces that fit in memory."""
    generator = np.random.default_rng(seed)
    groups = len(totals)
    piece = max(1, _CELLS_AT_ONCE // groups)
    for start in range(0, resamples, piece):
        rows = min(piece, resamples - start)
        drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=rows)
        yield (drawn @ totals) / (drawn @ counts)
