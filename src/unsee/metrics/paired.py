"""Two methods on the same people: is the difference of their scores more than chance?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A share of nothing kept; the harmonic mean has no value there.
_NOTHING = 1e-9

Right = NDArray[np.float64]


@dataclass(frozen=True)
class PairedSet:
    """Scores of single questions of one set, aligned.

    Attributes:
        subjects: Whom each question is about, (question,).
        base: Score of the model before, 0..1, (question,).
        reference: Of the model that never knew; None on a keep set.
        one: Of the first method.
        other: Of the second.
        chance: Accuracy of a constant answer, 0..1; used on keep sets.
    """

    subjects: Sequence[str]
    base: Right
    reference: Right | None
    one: Right
    other: Right
    chance: float = 0.0


@dataclass(frozen=True)
class Difference:
    """Of two scores.

    Attributes:
        value: First minus second.
        low: Lower end of the 95 % interval.
        high: Its upper end.
    """

    value: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    forget: Mapping[str, PairedSet],
    keep: Mapping[str, PairedSet],
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Difference:
    """Difference of `summary.score` between two methods that were asked the same questions.

    People are resampled within each set, the same ones for both methods and both references; which
    sets count, and chance, are those of the whole table.

    Args:
        forget: Sets that should become like the reference; all of them measurable.
        keep: Sets that should stay, those alone that can show a loss.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Raises:
        ValueError: If there is no forget or no keep set, or a forget set without a reference.
    """
    if not forget or not keep:
        raise ValueError("expected forget and keep sets, got none of one kind")
    rng = np.random.default_rng(seed)
    gaps: dict[str, list[Right]] = {"one": [], "other": []}
    shares: dict[str, list[Right]] = {"one": [], "other": []}
    for name, asked in forget.items():
        if asked.reference is None:
            raise ValueError(f"{name}: expected a reference")
        means = _resampled(asked, rng, resamples)
        known = means["base"] - means["reference"]
        for who, found in gaps.items():
            found.append(np.clip(means[who] - means["reference"], 0, None) / known)
    for asked in keep.values():
        means = _resampled(asked, rng, resamples)
        for who, found in shares.items():
            share = (means[who] - asked.chance) / (means["base"] - asked.chance)
            found.append(np.clip(share, _NOTHING, 1))
    difference = _score(gaps["one"], shares["one"]) - _score(gaps["other"], shares["other"])
    low, high = np.percentile(difference[1:], (2.5, 97.5))
    return Difference(float(difference[0]), float(low), float(high))


def _resampled(asked: PairedSet, rng: np.random.Generator, resamples: int) -> dict[str, Right]:
    """Mean scores: first of everybody once, then of people drawn with replacement."""
    people, group = np.unique(np.array(asked.subjects), return_inverse=True)
    weights = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), resamples)
    weights = np.vstack([np.ones(len(people), dtype=np.int64), weights])
    counts = weights @ np.bincount(group)
    models = {"base": asked.base, "one": asked.one, "other": asked.other}
    if asked.reference is not None:
        models["reference"] = asked.reference
    return {
        name: weights @ np.bincount(group, weights=right) / counts for name, right in models.items()
    }


def _score(gaps: Sequence[Right], shares: Sequence[Right]) -> Right:
    """As `metrics.summary`: the harmonic mean of 1 - mean gap and the harmonic mean of shares."""
    forgotten = np.clip(1 - np.mean(gaps, axis=0), 0, None)
    keep = len(shares) / np.sum([1 / share for share in shares], axis=0)
    return 2 * forgotten * keep / np.maximum(forgotten + keep, _NOTHING)
