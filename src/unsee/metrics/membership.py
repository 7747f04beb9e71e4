"""Whether a model tells what it was trained on from what it was not: scores, and how well they do.

Scores are higher for what looks trained on. As listed by OpenUnlearning
(https://arxiv.org/abs/2506.12618) and Open-MMUnlearning (https://arxiv.org/abs/2610.10358).
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unsee.metrics.intervals import RESAMPLES

LOW_FPR = 0.01
_LEVEL = (2.5, 97.5)


def lowest_mean(values: ArrayLike, share: float) -> float:
    """Mean of the lowest share of some values: Min-K on log-probabilities, Min-K++ on z-scores.

    Shi et al. 2023, https://arxiv.org/abs/2310.16789; Zhang et al. 2024,
    https://arxiv.org/abs/2404.02936.

    Args:
        values: One a token of the answer, at least one.
        share: Of the tokens, rounded up; above 0, at most 1.

    Raises:
        ValueError: If there is no value, or the share is out of range.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered) or not 0 < share <= 1:
        raise ValueError(f"expected values and a share in (0, 1], got {len(ordered)} and {share}")
    return float(ordered[: math.ceil(share * len(ordered))].mean())


def per_zlib_byte(mean_logprob: float, text: str) -> float:
    """Mean log-probability over the length of the text, packed by zlib, in bytes.

    Carlini et al. 2021, https://arxiv.org/abs/2012.07805, section 5.
    """
    return mean_logprob / len(zlib.compress(text.encode()))


def auc(member: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Probability that a member's score is above a non-member's, ties counting half; 0..1.

    Raises:
        ValueError: If either kind is missing.
    """
    inside, outside = _sides(member, scores)
    return float(_above(inside, outside).mean())


def tpr_at_fpr(
    member: NDArray[np.bool_], scores: NDArray[np.float64], fpr: float = LOW_FPR
) -> float:
    """Share of members above the lowest threshold that at most `fpr` of the others pass, 0..1.

    Raises:
        ValueError: If either kind is missing.
    """
    inside, outside = _sides(member, scores)
    allowed = math.floor(fpr * len(outside))
    threshold = np.sort(outside)[::-1][allowed] if allowed < len(outside) else -np.inf
    return float((inside > threshold).mean())


@dataclass(frozen=True)
class Told:
    """How well the best of some scores tells members, whichever way round it points.

    Attributes:
        value: max over scores of max(AUC, 1 - AUC), 0.5..1. What was pushed away from what a model
            gives to anything else is told too.
        low: 2.5th percentile over resampled subjects.
        high: 97.5th percentile.
        resampled: The value on each resample, the same subjects for every model.
    """

    value: float
    low: float
    high: float
    resampled: NDArray[np.float64]


def told(
    member: NDArray[np.bool_],
    scores: Mapping[str, NDArray[np.float64]],
    subjects: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Told:
    """The best score's AUC with a bootstrap over subjects; the best is chosen anew each time.

    Args:
        member: Whether each pair was trained on, (pair,).
        scores: By name, (pair,) each; at least one.
        subjects: Whom each pair is about, (pair,).
        seed: Of the resampling.
        resamples: Number of resampled values.

    Raises:
        ValueError: If members or others are missing, or there is no score.
    """
    if not scores:
        raise ValueError("expected at least one score, got none")
    _, group = np.unique(np.asarray(subjects), return_inverse=True)
    count = int(group.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    drawn = np.concatenate([np.ones((1, count), dtype=drawn.dtype), drawn])
    inside = np.eye(count)[group[member]]
    outside = np.eye(count)[group[~member]]
    pairs = np.outer(inside.sum(0), outside.sum(0))
    best = np.full(len(drawn), 0.5)
    for values in scores.values():
        wins = inside.T @ _above(*_sides(member, values)) @ outside
        number = np.einsum("ra,ab,rb->r", drawn, pairs, drawn)
        won = np.einsum("ra,ab,rb->r", drawn, wins, drawn)
        # A resample without members or without others says nothing.
        area = np.where(number > 0, won / np.maximum(number, 1), 0.5)
        best = np.maximum(best, np.maximum(area, 1 - area))
    low, high = np.percentile(best[1:], _LEVEL)
    value = float(best[0])
    return Told(value, min(float(low), value), max(float(high), value), best[1:])


def _sides(
    member: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not member.any() or member.all():
        raise ValueError(
            f"expected members and others, got {int(member.sum())} of {len(member)} members"
        )
    return scores[member], scores[~member]


def _above(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where a member's score is above another's, 0.5 where equal, (member, other)."""
    apart = inside[:, None] - outside[None, :]
    return np.where(apart > 0, 1.0, np.where(apart == 0, 0.5, 0.0))
