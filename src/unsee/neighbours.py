"""Which records are most like which, by photo and question together."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.models.hooks import captured
from unsee.models.load import VLM


def joint_features(
    vlm: VLM, records: Sequence[Record], *, batch_size: int = 16
) -> Float[Tensor, "record width"]:
    """What a model has made of photo and question where it would begin to answer.

    Args:
        vlm: The model; it is left as it is.
        records: What it reads; answers are not among it.
        batch_size: Records a forward pass, >= 1.

    Returns:
        State of the last prompt token behind the last language layer, in float32 on the CPU.
    """
    found = []
    path = vlm.layout.language_model
    for start in range(0, len(records), batch_size):
        batch = encode(vlm, records[start : start + batch_size], answers=False, side="left")
        with torch.no_grad(), captured(vlm.model, {"states": path}) as outputs:
            vlm.model(**batch.to(vlm.device).inputs(), use_cache=False, logits_to_keep=1)
        found.append(outputs["states"][:, -1].float().cpu())
    return torch.cat(found)


def nearest(
    queries: Float[Tensor, "query width"], pool: Float[Tensor, "record width"]
) -> Int[Tensor, " query"]:
    """Which of a pool is nearest to each query, by Euclidean distance; the first of equals."""
    return torch.cdist(queries, pool, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
