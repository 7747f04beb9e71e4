"""How deep unlearning goes, from what other models' states do to base's answers.

The unlearning depth score, UDS (https://arxiv.org/abs/2605.24614). At layer l, states of a model
that never knew (S1) or of the erased model (S2) are put in the place of base's, and the
log-probability that base then gives to the answer falls by S1_l or S2_l:

    UDS = sum over l with S1_l > tau of clip(S2_l, 0, S1_l)  /  sum over the same l of S1_l

1 where base loses as much by the erased model's states as by those of one that never knew, 0 where
it loses nothing by them.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

THRESHOLD_NATS = 0.05


def unlearning_depth(
    gold: Float[NDArray[np.float64], "record layer"],
    erased: Float[NDArray[np.float64], "record layer"],
    *,
    threshold: float = THRESHOLD_NATS,
) -> Float[NDArray[np.float64], " record"]:
    """UDS of each record.

    Args:
        gold: S1, nats a token; NaN in records that were not read.
        erased: S2, likewise.
        threshold: tau; layers in which a model that never knew lacks no more tell nothing.

    Returns:
        0..1; NaN where no layer tells anything.
    """
    telling = gold > threshold
    lacked = np.where(telling, gold, 0.0)
    total = lacked.sum(1)
    shared = np.where(telling, np.clip(erased, 0.0, lacked), 0.0).sum(1)
    return np.divide(shared, total, out=np.full(len(gold), np.nan), where=total > 0)


def absent_by_layer(
    gold: Float[NDArray[np.float64], "record layer"],
    erased: Float[NDArray[np.float64], "record layer"],
    *,
    threshold: float = THRESHOLD_NATS,
) -> Float[NDArray[np.float64], " layer"]:
    """The same of each layer over all records; NaN where no record tells anything."""
    return unlearning_depth(_pooled(gold, gold, threshold), _pooled(gold, erased, threshold))


def _pooled(
    gold: NDArray[np.float64], values: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    """Sums of what counts, a row a layer."""
    telling = gold > threshold
    return np.where(telling, np.clip(values, 0.0, gold), 0.0).sum(0)[:, None]
