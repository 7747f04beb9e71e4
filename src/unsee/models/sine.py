"""Weights as W + sin(V) inside a `with` block, with V trained; merged on the way out.

SineProject, Garg et al. 2025, https://arxiv.org/abs/2511.18444: the projector stays frozen beneath
a sine of trainable numbers, so that no weight leaves W by more than 1, however long something is
driven away, and the projector's Jacobian stays well-conditioned.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from unsee.errors import LayoutError

# Where PyTorch keeps what a weight is a function of.
_V = "parametrizations.weight.original"


class SineBounded(nn.Module):
    """The weight as a function of V.

    Args:
        base: W, which stays.
    """

    base: Tensor

    def __init__(self, base: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", base, persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        """W + sin(V), in the shape and dtype of W."""
        return self.base + v.sin()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The V to begin with: 0, which leaves W."""
        return torch.zeros_like(weight)


@contextmanager
def sine_bounded(model: nn.Module, targets: Sequence[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Have the weights of some linear layers follow W + sin(V).

    After an exception V is dropped and the weights are as before.

    Args:
        model: Changed in place.
        targets: Full paths of linear layers; their biases are left alone.

    Yields:
        V of each layer by the parameter's name, 0 at first.

    Raises:
        LayoutError: If a target is not a linear layer of the model.
    """
    modules = dict(model.named_modules())
    layers: list[nn.Linear] = []
    for path in targets:
        layer = modules.get(path)
        if not isinstance(layer, nn.Linear):
            raise LayoutError(
                f"expected paths of linear layers, got {path}; check what is bounded by a sine"
            )
        layers.append(layer)
    order = [list(layer._parameters) for layer in layers]
    for layer in layers:
        register_parametrization(layer, "weight", SineBounded(layer.weight.detach().clone()))
    named = dict(model.named_parameters())
    moving = {name: named[name] for name in (f"{path}.{_V}" for path in targets)}
    for v in moving.values():
        v.requires_grad_(True)
    try:
        yield moving
    except BaseException:
        with torch.no_grad():
            for v in moving.values():
                v.zero_()
        raise
    finally:
        for layer, names in zip(layers, order, strict=True):
            remove_parametrizations(layer, "weight")
            # The weight came back behind the bias; names keep their order.
            for name in names:
                layer._parameters[name] = layer._parameters.pop(name)
