"""CLEAR's own scores, and those of the later papers that use it: `protocol = "published"`.

Dontsov et al. 2024, https://arxiv.org/abs/2410.18057. Four sets beside the two of those to forget,
the first 300 rows of each, greedy answers of at most 300 tokens. What of the published evaluation
is a fault and mended here is listed in docs/benchmarks.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unsee.data.clear import CAPTION_QUESTION
from unsee.metrics.answers import rouge
from unsee.metrics.distributions import ks_p_value
from unsee.metrics.probability import truth_ratio_of
from unsee.metrics.summary import harmonic_mean

FACE_PROMPT = "The name of the person on the image is "
UTILITY_SETS = ("real_faces", "real_world", "retain", "retain_faces")
FORGET_SETS = ("forget", "forget_faces")
# Sets whose answers are captions; their probability has no rivals.
_CAPTIONS = ("retain", "forget")


@dataclass(frozen=True)
class Row:
    """What a model says and thinks of one row.

    Attributes:
        answer: Right answer: caption, name, or one of the options.
        reply: What it answers, asked on the photo.
        right: Mean log-probability a token of the right answer, nats.
        paraphrased: The same of the right answer in other words; `right` where there is none.
        wrong: The same of each wrong answer of this row; at least one.
    """

    answer: str
    reply: str
    right: float
    paraphrased: float
    wrong: tuple[float, ...]

    def truth_ratio(self) -> float:
        """R of this row: wrong answers over the paraphrased right one."""
        return truth_ratio_of(self.paraphrased, self.wrong)


def prompt(name: str, question: str = "") -> str:
    """What is asked on the photos of a set.

    Args:
        name: One of `UTILITY_SETS` or `FORGET_SETS`.
        question: The row's own, which counts for `real_world` alone.
    """
    if name == "real_world":
        return question
    return CAPTION_QUESTION if name in _CAPTIONS else FACE_PROMPT


def set_scores(name: str, rows: Sequence[Row]) -> dict[str, float]:
    """ROUGE-L recall, probability and truth ratio of a set, means over its rows.

    Args:
        name: One of `UTILITY_SETS` or `FORGET_SETS`.
        rows: What the model says and thinks of its rows.

    Returns:
        `{"rouge", "probability", "truth_ratio"}`, 0..1. Probability is that of the answer, for
        captions by itself and else as its share beside the wrong ones. The truth ratio is
        min(R, 1 / R) for those to forget, 1 where the model cannot tell, and max(0, 1 - R) for
        others, 1 where it is sure.

    Raises:
        ValueError: If the set is not known, or there are no rows.
    """
    if name not in (*UTILITY_SETS, *FORGET_SETS):
        raise ValueError(f"expected {', '.join((*UTILITY_SETS, *FORGET_SETS))}, got {name!r}")
    if not rows:
        raise ValueError(f"{name}: expected at least one row, got none")
    ratios = np.array([row.truth_ratio() for row in rows])
    forgotten = name in FORGET_SETS
    with np.errstate(divide="ignore"):
        told = np.minimum(ratios, 1 / ratios) if forgotten else np.maximum(0, 1 - ratios)
    return {
        "rouge": float(np.mean([rouge(row.answer, row.reply)[1] for row in rows])),
        "probability": float(np.mean([_probability(row, alone=name in _CAPTIONS) for row in rows])),
        "truth_ratio": float(told.mean()),
    }


def model_utility(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Harmonic mean of the three scores of the four sets that are to be kept: twelve numbers.

    Args:
        scores: `set_scores` by set; those to forget are not read.

    Raises:
        ValueError: If a set is missing.
    """
    missing = [name for name in UTILITY_SETS if name not in scores]
    if missing:
        raise ValueError(f"expected scores of {', '.join(UTILITY_SETS)}; missing: {missing}")
    return harmonic_mean([value for name in UTILITY_SETS for value in scores[name].values()])


def forget_quality(rows: Sequence[Row], reference: Sequence[Row]) -> float:
    """p-value of the Kolmogorov-Smirnov test between the truth ratios of two models.

    Args:
        rows: Rows of the captions to forget.
        reference: The same rows, of a model that was trained on those to keep alone.

    Returns:
        0..1; see `ks_p_value`.
    """
    return ks_p_value([r.truth_ratio() for r in rows], [r.truth_ratio() for r in reference])


def _probability(row: Row, *, alone: bool) -> float:
    right = np.exp(row.right)
    return float(right if alone else right / (right + np.exp(row.wrong).sum()))
