"""RMU: states of forget prompts are steered to a random direction, those of others held.

Li et al. 2024, "The WMDP benchmark: measuring and reducing malicious use with unlearning",
https://arxiv.org/abs/2403.03218. With h the states after one layer of the language
model, h_0 those of the frozen starting model and u a random unit vector, entries uniform on [0, 1)
before it is normalised:

    L = E_{D_f} |h - c u|^2 / width + retain_weight * E_{D_r} |h - h_0|^2 / width

c is `coefficient`, or `coefficient` times |h_0| of the same token, as in Adaptive RMU (Dang et al.
2025, https://arxiv.org/abs/2408.06223): a fixed one fits one width and one layer of one model.

The paper takes every token of a text. Here it is those from which an answer is read off, from the
last of the prompt on: a photo's own tokens are those of what anyone can see in it, too, which is
to stay. The paper trains three MLP matrices up to the layer; here it is the whole of `parts`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unsee.data.collate import Batch
from unsee.data.records import Split
from unsee.errors import ConfigError
from unsee.finetuning import FineTuned, weighted
from unsee.losses import mean_squared_states
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.hooks import captured
from unsee.models.load import VLM
from unsee.reference import Reference
from unsee.sampling import PairBatch
from unsee.settings import Space, Span


@dataclass(frozen=True)
class State:
    """Made once a run.

    Attributes:
        reference: The starting model.
        control: u, (width,).
    """

    reference: Reference
    control: Tensor


@METHODS.register("rmu")
class RMU(FineTuned):
    """Representation misdirection for unlearning.

    Rate and weight are those published for a model of 32 layers, with layer 7 and a fixed 6.5; the
    other defaults are ours. None is tuned on the built-in world.

    Attributes:
        lr: Peak learning rate.
        parts: What is trained: vision, projector, or language layers up to `layer`.
        layer: Language layer whose states are steered, from 0.
        coefficient: c, in lengths of the state at the start with `adaptive`.
        adaptive: Whether c follows the length of each token's state at the start.
        retain_weight: Weight of the retain loss.
    """

    space: ClassVar[Space] = {
        **FineTuned.space,
        "retain_weight": Span(1, 1200),
        "coefficient": Span(1, 100),
    }

    lr: float = Field(5e-5, gt=0)
    parts: tuple[str, ...] = Field(("language.layers[:3]",), min_length=1)
    layer: int = Field(2, ge=0)
    coefficient: float = Field(5.0, gt=0)
    adaptive: bool = True
    retain_weight: float = Field(1200.0, ge=0)

    def trainable(self, vlm: VLM) -> list[str]:
        """Full names of every parameter in `parts`, all of them before what the loss reads.

        Raises:
            ConfigError: If there is no such layer, or `parts` reach beyond it.
        """
        self._refuse_idle_parts(vlm)
        return super().trainable(vlm)

    def lora_targets(self, vlm: VLM) -> list[str]:
        """Full paths of every linear layer in `parts`; as `trainable`."""
        self._refuse_idle_parts(vlm)
        return super().lora_targets(vlm)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> State:
        """The starting model, and a direction drawn with the seed."""
        width = vlm.model.config.get_text_config().hidden_size
        return State(Reference.of(vlm), control_vector(width, seed=seed).to(vlm.device))

    def loss(self, vlm: VLM, batch: PairBatch, state: State) -> Terms:
        """Misdirection on forget answers, states held on all that is kept."""
        rows = batch.forget.batch
        target = self.coefficient * state.control
        if self.adaptive:
            before = self._states_before(vlm, rows, state)
            target = before.norm(dim=-1, keepdim=True) * target
        states = self._states(vlm, rows)

        def held() -> Tensor:
            before = self._states_before(vlm, batch.keep.batch, state)
            states = self._states(vlm, batch.keep.batch)
            return mean_squared_states(states, batch.keep.batch.labels, before)

        return Terms(
            forget={
                "misdirection": mean_squared_states(states, rows.labels, target.expand_as(states))
            },
            retain=weighted(self.retain_weight, states=held),
        )

    def _states(self, vlm: VLM, rows: Batch) -> Tensor:
        """What `layer` returns, (batch, seq, width); nothing behind it is run."""
        with captured(vlm.model, {"states": self._path(vlm)}, stop=True) as outputs:
            vlm.model(**rows.inputs(), use_cache=False)
        return outputs["states"]

    def _states_before(self, vlm: VLM, rows: Batch, state: State) -> Tensor:
        with state.reference.in_place(vlm):
            return self._states(vlm, rows)

    def _path(self, vlm: VLM) -> str:
        paths = vlm.layout.language_layer_paths(vlm.model)
        if self.layer >= len(paths):
            raise ConfigError(
                f"method.layer: expected at most {len(paths) - 1} for {vlm.source}, "
                f"got {self.layer}"
            )
        return paths[self.layer]

    def _refuse_idle_parts(self, vlm: VLM) -> None:
        self._path(vlm)
        reach = ("vision", "projector", f"language.layers[:{self.layer + 1}]")
        read = set(vlm.layout.parameter_names(vlm.model, reach))
        idle = [n for n in vlm.layout.parameter_names(vlm.model, self.parts) if n not in read]
        if idle:
            raise ConfigError(
                f"method.parts: expected some of {', '.join(reach)}, on which the states of "
                f"method.layer={self.layer} depend, got {', '.join(self.parts)} with {idle[0]}"
            )


def control_vector(width: int, *, seed: int) -> Tensor:
    """A random direction of length 1, (width,): no entry is negative, as in the paper."""
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()
