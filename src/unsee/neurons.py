"""Neurons of MLPs: which weights read them, and how they answer to records.

A neuron is an input of the second linear layer of a transformer block's MLP (behind the activation
function, and behind the gate where there is one); the layer's column of that number is what the
neuron writes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.errors import LayoutError
from unsee.losses import IGNORED_LABEL
from unsee.models.hooks import observed
from unsee.models.load import VLM


@dataclass
class Responses:
    """What the neurons of one layer put out, summed over tokens, in float64 on the CPU.

    Attributes:
        tokens: How many.
        absolute: Sum of |z|, (neuron,).
        squared: Sum of z^2, (neuron,).
        firing: Tokens with |z| above the level that was asked for, (neuron,).
    """

    tokens: int
    absolute: Float[Tensor, " neuron"]
    squared: Float[Tensor, " neuron"]
    firing: Float[Tensor, " neuron"]

    @classmethod
    def none(cls, neurons: int) -> "Responses":
        """Of no token."""
        return cls(0, *(torch.zeros(neurons, dtype=torch.float64) for _ in range(3)))

    def add(self, z: Float[Tensor, "token neuron"], *, level: float) -> None:
        """Take in some tokens."""
        size = z.detach().abs().float()
        self.tokens += len(size)
        self.absolute += size.sum(0).double().cpu()
        self.squared += size.square().sum(0).double().cpu()
        self.firing += (size > level).sum(0).double().cpu()

    @property
    def mean(self) -> Float[Tensor, " neuron"]:
        """Mean of |z|; 0 where no token was seen."""
        return self.absolute / max(1, self.tokens)

    @property
    def energy(self) -> Float[Tensor, " neuron"]:
        """Mean of z^2."""
        return self.squared / max(1, self.tokens)

    @property
    def rate(self) -> Float[Tensor, " neuron"]:
        """Share of tokens at which the neuron fires."""
        return self.firing / max(1, self.tokens)

    @property
    def variance(self) -> Float[Tensor, " neuron"]:
        """Variance of |z| over tokens."""
        return (self.energy - self.mean.square()).clamp(min=0)


def neuron_readers(vlm: VLM, parts: Sequence[str]) -> list[str]:
    """Paths of the linear layers that read the neurons of some parts of a model.

    Vision blocks whose output nothing reads are left out.

    Args:
        vlm: The model.
        parts: `vision`, `language`, or some of their blocks or layers, as the layout names them.

    Raises:
        LayoutError: If a part has no neurons, or a layer keeps them elsewhere, as experts do.
    """
    layout, model = vlm.layout, vlm.model
    used = layout.vision_block_paths(model)[: layout.used_vision_blocks(model)]
    homes = {block: f"{block}.{layout.vision_mlp_out}" for block in used} | {
        layer: f"{layer}.{layout.language_mlp_out}" for layer in layout.language_layer_paths(model)
    }
    chosen: set[str] = set()
    for part in parts:
        names = layout.parameter_names(model, [part])
        found = {home for home in homes if any(name.startswith(f"{home}.") for name in names)}
        if not found:
            raise LayoutError(
                f"method.parts: {part!r} has no MLP whose neurons are used; choose vision, "
                "language, vision.blocks[i:j] or language.layers[i:j]"
            )
        chosen |= found
    readers = [reader for home, reader in homes.items() if home in chosen]
    modules = dict(model.named_modules())
    lacking = [path for path in readers if not isinstance(modules.get(path), torch.nn.Linear)]
    if lacking:
        raise LayoutError(
            f"{type(model).__name__}: expected the linear layer that reads a block's neurons at "
            f"{lacking[0]!r}, got none; choose other parts"
        )
    return readers


def responses(
    vlm: VLM,
    records: Sequence[Record],
    readers: Sequence[str],
    *,
    level: float = 0.0,
    answers_only: bool = False,
    batch_size: int = 8,
    told: Callable[[int], None] | None = None,
) -> dict[str, Responses]:
    """How neurons answer to records, whose answers are given along.

    Args:
        vlm: The model; it is left as it is.
        records: What it reads.
        readers: As `neuron_readers` gives them.
        level: |z| above which a neuron counts as firing.
        answers_only: Only those tokens of the language model count behind which an answer's token
            is read off; otherwise all but padding.
        batch_size: Records a forward pass, >= 1.
        told: Told after each pass how many records it took in.

    Returns:
        Reader -> responses; without a photo those of vision blocks are of no token.
    """
    found = {path: Responses.none(vlm.model.get_submodule(path).in_features) for path in readers}
    language = f"{vlm.layout.language_layers}."
    for start in range(0, len(records), batch_size):
        batch = encode(vlm, records[start : start + batch_size], answers=True, side="right")
        batch = batch.to(vlm.device)
        read = batch.attention_mask.bool()
        if answers_only:
            # The last position writes nothing.
            answers = batch.labels != IGNORED_LABEL
            read = torch.cat([answers[:, 1:], torch.zeros_like(answers[:, :1])], 1)
        functions = {
            path: _adder(found[path], level, read if path.startswith(language) else None)
            for path in readers
        }
        with torch.no_grad(), observed(vlm.model, functions):
            vlm.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
        if told is not None:
            told(len(batch.input_ids))
    return found


def _adder(
    sums: Responses, level: float, read: Bool[Tensor, "batch seq"] | None
) -> Callable[[Tensor], None]:
    def add(z: Tensor) -> None:
        sums.add(z.flatten(0, -2) if read is None else z[read.to(z.device)], level=level)

    return add


def key_covariances(
    vlm: VLM, records: Sequence[Record], readers: Sequence[str], *, batch_size: int = 8
) -> dict[str, Float[Tensor, "neuron neuron"]]:
    """Mean of z z^T over tokens, for the neurons that each reader is given.

    Args:
        vlm: The model; it is left as it is.
        records: What it reads, answers along.
        readers: Of language layers, as `neuron_readers` gives them.
        batch_size: Records a forward pass, >= 1.

    Returns:
        Reader -> covariance about 0, in float32 on the model's device.
    """
    sizes = {path: vlm.model.get_submodule(path).in_features for path in readers}
    found = {path: torch.zeros(size, size, device=vlm.device) for path, size in sizes.items()}
    tokens = 0
    for start in range(0, len(records), batch_size):
        batch = encode(vlm, records[start : start + batch_size], answers=True, side="right")
        batch = batch.to(vlm.device)
        read = batch.attention_mask.bool()
        tokens += int(read.sum())

        def adder(path: str, read: Tensor = read) -> Callable[[Tensor], None]:
            def add(z: Tensor) -> None:
                keys = z[read].float()
                found[path] += (keys.mT @ keys).to(found[path].device)

            return add

        with torch.no_grad(), observed(vlm.model, {path: adder(path) for path in readers}):
            vlm.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
    return {path: total / max(1, tokens) for path, total in found.items()}
