"""The starting model beside the one in training, for losses that compare the two."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from unsee.models.load import VLM


@contextmanager
def weights_of(vlm: VLM, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with some of its parameters exchanged, for passes without gradients."""
    parameters = dict(vlm.model.named_parameters())
    own = {name: parameters[name].data for name in weights}
    try:
        for name, tensor in weights.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in own.items():
            parameters[name].data = tensor


@dataclass(frozen=True)
class Reference:
    """The model as training found it.

    It costs a copy of what moves, not of the model: with low-rank adapters that is the adapters
    alone, which add nothing at the start.

    Attributes:
        weights: Parameters that move, as they were, by full name.
    """

    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, vlm: VLM) -> "Reference":
        """The model as it is now; to be made in `prepare`, where gradients are on for what moves.

        Args:
            vlm: Parameters without a gradient are taken to stay as they are.
        """
        moving = {name: p for name, p in vlm.model.named_parameters() if p.requires_grad}
        return cls({name: p.detach().clone() for name, p in moving.items()})

    @contextmanager
    def in_place(self, vlm: VLM) -> Iterator[None]:
        """Inside the block, `vlm` answers as the starting model, and without gradients."""
        with torch.no_grad(), weights_of(vlm, self.weights):
            yield
