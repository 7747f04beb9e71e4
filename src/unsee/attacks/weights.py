"""The same question to a model whose weights were packed, thinned or mixed with the old ones.

Quantisation brings back much of what was unlearned: Zhang et al. 2024,
https://arxiv.org/abs/2410.16454. Ours is plain rounding to nearest, a scale an output channel,
computed here and used in the model's own precision: no packed kernel runs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given, Group, Try
from unsee.models.load import VLM
from unsee.models.restore import restored
from unsee.settings import Settings

Transform = Callable[[Tensor], Tensor]


@ATTACKS.register("half_precision")
class HalfPrecision(Settings):
    """All weights rounded to float16, and to bfloat16."""

    group: ClassVar[Group] = "weights"

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try]:
        """A try a precision."""
        return [
            Try(name, change=_changing(_parameters, _rounding(dtype)))
            for name, dtype in {"float16": torch.float16, "bfloat16": torch.bfloat16}.items()
        ]


class _Quantised(Settings):
    """Linear layers but the head, rounded to few bits."""

    group: ClassVar[Group] = "weights"
    bits: ClassVar[int]

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try]:
        """One try."""
        bits = self.bits
        return [Try(f"{bits} bits", change=_changing(_linear, lambda w: quantised(w, bits)))]


@ATTACKS.register("int8")
class Int8(_Quantised):
    """Linear layers but the head in 8 bits, rounded to nearest, a scale an output channel."""

    bits: ClassVar[int] = 8


@ATTACKS.register("int4")
class Int4(_Quantised):
    """Linear layers but the head in 4 bits, rounded to nearest, a scale an output channel."""

    bits: ClassVar[int] = 4


@ATTACKS.register("pruning")
class Pruning(Settings):
    """The smallest weights of every linear layer but the head set to 0.

    Attributes:
        shares: Of the weights, a try each.
    """

    group: ClassVar[Group] = "weights"

    shares: tuple[float, ...] = (0.1, 0.3)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try]:
        """A try a share."""

        def pruning(share: float) -> Transform:
            return lambda w: pruned(w, share)

        return [Try(f"{s:g}", change=_changing(_linear, pruning(s))) for s in self.shares]


@ATTACKS.register("merge")
class Merge(Settings):
    """Mixed with base, as a momentum update or a merge of checkpoints does: w + share * (base - w).

    Whoever does it on purpose has base already; that it may happen by accident is the point.

    Attributes:
        share: Way back to base, 0 to 1.
    """

    group: ClassVar[Group] = "weights"

    share: float = Field(0.5, gt=0, le=1)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """One try; base comes back as it is."""
        if not given.changes_weights:
            return "the erased model has base's own weights"
        name, old = f"{self.share:g} of base", given.base
        if not old:
            return [Try(name)]
        own = dict(vlm.model.named_parameters())
        mixed = [n for n in own if n in old and own[n].is_floating_point()]
        if not mixed or any(own[n].shape != old[n].shape for n in mixed):
            return "its weights are not laid out like base's"

        @contextmanager
        def merging(vlm: VLM) -> Iterator[None]:
            with restored(vlm.model, mixed):
                for n, w in vlm.model.named_parameters():
                    if n in old:
                        _put(w, merged(w, old[n].to(w.device), self.share))
                yield

        return [Try(name, change=merging)]


def quantised(weight: Float[Tensor, "channel ..."], bits: int) -> Float[Tensor, "channel ..."]:
    """A weight rounded to nearest on 2^bits - 1 levels around 0, a scale an output channel.

    scale = max|w| / (2^(bits - 1) - 1) of each channel; w' = scale * round(w / scale).

    Args:
        weight: Channels first.
        bits: >= 2.

    Returns:
        In the weight's own dtype.

    Raises:
        ValueError: If there are fewer bits than two.
    """
    if bits < 2:
        raise ValueError(f"bits must be at least 2, got {bits}")
    rows = weight.detach().float().flatten(1)
    scale = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    levels = (rows / scale.where(scale > 0, 1.0)).round()
    return (levels * scale).reshape(weight.shape).to(weight.dtype)


def pruned(weight: Float[Tensor, "..."], share: float) -> Float[Tensor, "..."]:
    """A weight whose smallest values in magnitude are 0.

    Args:
        weight: Any shape.
        share: Of its values that become 0, rounded down; 0 to 1.
    """
    flat = weight.detach().flatten().clone()
    count = int(share * flat.numel())
    flat[flat.abs().topk(count, largest=False).indices] = 0
    return flat.reshape(weight.shape)


def merged(
    weight: Float[Tensor, "..."], base: Float[Tensor, "..."], share: float
) -> Float[Tensor, "..."]:
    """A share of the way from a weight to base's: w + share * (base - w)."""
    return torch.lerp(weight.detach().float(), base.float(), share).to(weight.dtype)


def _rounding(dtype: torch.dtype) -> Transform:
    return lambda weight: weight.detach().to(dtype).to(weight.dtype)


def _changing(names: Callable[[VLM], Iterable[str]], transform: Transform) -> Any:
    """Weights changed inside a block, and put back bit for bit behind it."""

    @contextmanager
    def change(vlm: VLM) -> Iterator[None]:
        chosen = list(names(vlm))
        with restored(vlm.model, chosen):
            own: Mapping[str, Tensor] = vlm.model.state_dict()
            for name in chosen:
                _put(own[name], transform(own[name]))
            yield

    return change


def _put(weight: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        weight.copy_(value)


def _parameters(vlm: VLM) -> list[str]:
    """All parameters that are numbers, each once."""
    return [name for name, w in vlm.model.named_parameters() if w.is_floating_point()]


def _linear(vlm: VLM) -> list[str]:
    """Weights of all linear layers but the head."""
    return [
        f"{path}.weight"
        for path, module in vlm.model.named_modules()
        if isinstance(module, nn.Linear) and path != vlm.layout.head
    ]
