"""Scores from the log-probabilities of answers, for what greedy replies do not show."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def answer_probability(logprob: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
    """Probability of each answer, to the power of one over its length.

    Args:
        logprob: Log-probability of each answer, summed over its tokens, nats, (record,).
        tokens: Number of tokens of each answer, >= 1, (record,).

    Returns:
        exp(logprob / tokens), 0..1, (record,).

    Raises:
        ValueError: If an answer has no tokens.
    """
    counts = np.asarray(tokens)
    if (counts < 1).any():
        raise ValueError(f"tokens must be at least 1, got {counts.min()}")
    return np.exp(np.asarray(logprob, dtype=np.float64) / counts)


def truth_ratio(true: float, wrong: Sequence[float]) -> float:
    """How much more probable the true answer is than like-worded wrong ones.

    From the ratio R of Maini et al. 2024, https://arxiv.org/abs/2401.06121: the mean
    length-normalised probability of the wrong answers over that of the true one, or its
    paraphrase. R has no upper end; we give 1 / (1 + R), which runs the other way in 0..1.

    Args:
        true: Mean log-probability a token of the true answer or its paraphrase, nats.
        wrong: The same of each wrong answer; at least one.

    Returns:
        0..1: 1 if only the true answer is probable, 0.5 if the model cannot tell.

    Raises:
        ValueError: If there is no wrong answer.
    """
    if not wrong:
        raise ValueError("wrong must hold at least one answer, got none")
    # Beside the most probable one, so that very improbable answers do not become 0 / 0.
    highest = max(true, *wrong)
    likely = np.exp(true - highest)
    unlikely = np.mean(np.exp(np.asarray(wrong) - highest))
    return float(likely / (likely + unlikely))


def truth_ratio_of(true: float, wrong: Sequence[float]) -> float:
    """The ratio R itself, with the geometric mean over the wrong answers.

    As Open-MMUnlearning, OpenUnlearning and CLEAR compute it: exp(mean of wrong - true). TOFU's
    utility takes the arithmetic mean, as does `truth_ratio`.

    Args:
        true: Mean log-probability a token of the true answer or its paraphrase, nats.
        wrong: The same of each wrong answer; at least one.

    Returns:
        0 if only the true answer is probable, 1 if the model cannot tell, no upper end.

    Raises:
        ValueError: If there is no wrong answer.
    """
    if not len(wrong):
        raise ValueError("wrong must hold at least one answer, got none")
    with np.errstate(over="ignore"):
        return float(np.exp(np.mean(wrong) - true))
