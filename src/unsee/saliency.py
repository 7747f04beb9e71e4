"""Saliency masks: which weights serve the forget set more than what is to be kept."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unsee.answering import answer_logits
from unsee.losses import cross_entropy
from unsee.models.load import VLM
from unsee.sampling import Rows, Sampler

_FLOOR = 1e-15


def fisher_ratio_mask(
    vlm: VLM, sampler: Sampler, *, batches: int, threshold: float
) -> dict[str, Tensor]:
    """Ratio of forget to retain Fisher information, thresholded.

    MMUnlearner, Huo et al. 2025, https://arxiv.org/abs/2502.11051: squared gradients of the mean
    batch loss, averaged over batches; 1 where (G_f + 1e-15) / (G_r + 1e-15) >= threshold.

    Args:
        vlm: Model whose parameters that require a gradient are scored.
        sampler: Gives the batches.
        batches: How many of each side.
        threshold: Ratio from which a weight is salient.

    Returns:
        Name -> mask of 0 and 1 in the parameter's shape.
    """
    forget = _squared_gradients(vlm, [sampler.draw(-1 - i).forget for i in range(batches)])
    keep = _squared_gradients(vlm, [sampler.draw(-1 - i).keep for i in range(batches)])
    return {
        name: ((forget[name] + _FLOOR) / (keep[name] + _FLOOR) >= threshold).to(forget[name].dtype)
        for name in forget
    }


def apply_mask(vlm: VLM, mask: Mapping[str, Tensor]) -> None:
    """Multiplies the gradients in place."""
    for name, p in vlm.model.named_parameters():
        if name in mask and p.grad is not None:
            p.grad.mul_(mask[name])


def _squared_gradients(vlm: VLM, batches: list[Rows]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for rows in batches:
        cross_entropy(*answer_logits(vlm, rows.batch)).backward()
        for name, p in vlm.model.named_parameters():
            if p.requires_grad:
                squared = torch.zeros_like(p) if p.grad is None else p.grad.square()
                total[name] = total.get(name, 0) + squared / len(batches)
                p.grad = None
    return total
