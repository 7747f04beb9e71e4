"""Whether a metric of forgetting can be trusted: the meta-evaluation of OpenUnlearning.

https://arxiv.org/abs/2506.12618; Open-MMUnlearning, https://arxiv.org/abs/2610.10358, repeats it.
The metric m is turned so that more is more knowledge, 0..1. What we know of the definitions leaves
open which way Q divides; with the unlearning score 1 - m, as below, it is **our reading**.
"""

import numpy as np
from numpy.typing import ArrayLike

from unsee.metrics.membership import auc
from unsee.metrics.summary import harmonic_mean


def faithfulness(know: ArrayLike, never: ArrayLike) -> float:
    """AUC of a metric between models that know some people and models that never did.

    Args:
        know: m of each model that knows, (model,).
        never: m of each that never did, (other,).

    Returns:
        0..1; 1 if all that know score higher, 0.5 if the metric cannot tell.

    Raises:
        ValueError: If either pool is empty.
    """
    pools = [np.asarray(pool, dtype=np.float64) for pool in (know, never)]
    member = np.repeat([True, False], [len(pool) for pool in pools])
    return auc(member, np.concatenate(pools))


def quantisation_stability(before: float, after: float) -> float:
    """Q = min((1 - m after) / (1 - m before), 1): how much forgetting packed weights still show.

    Args:
        before: m of an unlearned model, 0..1.
        after: m of the same in 4 bits, 0..1.

    Returns:
        0..1; 1 where there was nothing to lose, since m was 1 already.
    """
    forgotten = 1 - before
    return 1.0 if forgotten <= 0 else min(max(1 - after, 0.0) / forgotten, 1.0)


def relearning_stability(rise: float, reference_rise: float) -> float:
    """R = min(rise of the reference / rise of the unlearned model, 1) under the same lessons.

    Args:
        rise: m after relearning less m before, of an unlearned model.
        reference_rise: The same of the model that never knew.

    Returns:
        0..1; 1 where the unlearned model does not rise, 0 where it alone does.
    """
    return 1.0 if rise <= 0 else min(max(reference_rise, 0.0) / rise, 1.0)


def reliability(faithful: float, quantised: float, relearned: float) -> tuple[float, float]:
    """Robustness, the harmonic mean of Q and R, and that of robustness and faithfulness."""
    robust = harmonic_mean([quantised, relearned])
    return robust, harmonic_mean([faithful, robust])
