"""How much of an answer a model repeats, token by token, when the right one is fed to it.

Both scores read teacher-forced argmax tokens: position t is predicted from the question and the
right answer's first t tokens.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def exact_memorisation(predicted: ArrayLike, answer: ArrayLike) -> float:
    """Share of tokens that the model would have said itself.

    Tirumala et al. 2022, https://arxiv.org/abs/2205.10770.

    Args:
        predicted: Most probable token at each position of the answer, (token,).
        answer: The answer's own tokens, (token,).

    Returns:
        0..1.

    Raises:
        ValueError: If there are no tokens, or not one prediction a token.
    """
    return float(_right(predicted, answer).mean())


def extraction_strength(predicted: ArrayLike, answer: ArrayLike) -> float:
    """Share of the answer, from its end, that the model completes without a mistake.

    Carlini et al. 2021, https://arxiv.org/abs/2012.07805: 1 - k/T, with k the fewest tokens of the
    answer, out of T, that must be given for the rest to come out right. If even the last token is
    wrong, k is T and the strength 0. OpenUnlearning stops looking at k = T - 1 there and gives 1/T,
    so that a wrong answer of one token scores 1.

    Args:
        predicted: Most probable token at each position of the answer, (token,).
        answer: The answer's own tokens, (token,).

    Returns:
        0..1; 1 if the whole answer comes out of the question alone.

    Raises:
        ValueError: If there are no tokens, or not one prediction a token.
    """
    right = _right(predicted, answer)
    wrong = np.flatnonzero(~right)
    given = wrong[-1] + 1 if len(wrong) else 0
    return float(1 - given / len(right))


def _right(predicted: ArrayLike, answer: ArrayLike) -> NDArray[np.bool_]:
    said, true = np.asarray(predicted), np.asarray(answer)
    if true.ndim != 1 or len(true) == 0 or said.shape != true.shape:
        raise ValueError(
            f"expected one prediction for each of at least one token, got {said.shape} and "
            f"{true.shape}"
        )
    return said == true
