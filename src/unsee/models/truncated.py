"""The first layers of a language model on their own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unsee.models.load import VLM


@contextmanager
def first_layers(vlm: VLM, count: int, *, seed: int = 0) -> Iterator[None]:
    """Cut the language model off after some layers, below a head that knows nothing yet.

    The last norm stays. Layers and head come back behind the block, whatever was done to the new
    head meanwhile.

    Args:
        vlm: The model.
        count: Layers that stay, from the first; at least one.
        seed: Of the new head's weights.

    Raises:
        ValueError: If the model has fewer layers.
    """
    layers, head = (
        vlm.model.get_submodule(path) for path in (vlm.layout.language_layers, vlm.layout.head)
    )
    if not isinstance(layers, nn.ModuleList) or not 1 <= count <= len(layers):
        raise ValueError(f"expected 1 to {len(list(layers.children()))} layers, got {count}")
    if not isinstance(head, nn.Linear):
        raise ValueError(f"expected a linear head, got {type(head).__name__}")
    fresh = nn.Linear(head.in_features, head.out_features, bias=head.bias is not None)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in fresh.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
    fresh.to(head.weight.device, head.weight.dtype).requires_grad_(head.weight.requires_grad)
    try:
        vlm.model.set_submodule(vlm.layout.language_layers, layers[:count])
        vlm.model.set_submodule(vlm.layout.head, fresh)
        yield
    finally:
        vlm.model.set_submodule(vlm.layout.language_layers, layers)
        vlm.model.set_submodule(vlm.layout.head, head)
