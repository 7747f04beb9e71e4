"""Put a model back as it was, bit for bit, whatever happens in between."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def restored(model: nn.Module, names: Iterable[str] | None = None) -> Iterator[None]:
    """Copies of tensors on the CPU while the block runs; they go back on the way out.

    Args:
        model: May be changed in place inside the block.
        names: Full names of parameters and buffers that may change; None for all, which takes as
            much memory as the model.
    """
    state = model.state_dict()
    chosen = state if names is None else {name: state[name] for name in names}
    before = {name: tensor.detach().to("cpu", copy=True) for name, tensor in chosen.items()}
    training = model.training
    try:
        yield
    finally:
        now = model.state_dict()
        with torch.no_grad():
            for name, tensor in before.items():
                now[name].copy_(tensor)
        model.train(training)
