"""KUDA: drive the states of forgotten facts away, in directions that nothing kept uses.

Fang et al. 2026, "Knowledge unlearning by deviating representation", https://arxiv.org/abs/
2602.19275. The paper is on text and its equations are not public to us. Known are its ingredients:
causal tracing picks a window of layers, a loss with a cosine and a temperature drives their states
from where they were, and the update is projected onto a relaxed null space of what is kept.
Everything more exact than that is **our reading**. In a window S of language layers, with h_l the
state behind layer l where answers are read off, h_l^0 the starting model's, k_l what the layer that
reads the MLP's neurons is given, and C_l = E k_l k_l^T over what is kept, s its largest eigenvalue:

    S   = the `window` layers in a row with the greatest total causal effect on forget facts
    L   = forget_weight  mean_l E_{D_f} softplus( cos(h_l, h_l^0) / temperature )
        + retain_weight  mean_l E_{D_r} |h_l - h_l^0|^2 / width
    W_l <- W_l + step P_l,   P_l = relaxation (C_l / s + relaxation)^-1

W_l is the weight that reads the neurons; nothing else is trained. P_l leaves a direction that no
kept key has, and takes all but relaxation / (1 + relaxation) of the strongest one. The *step* is
projected, not the gradient, since AdamW scales each coordinate and would leave the subspace. Kept
keys are those of photos as well as of words, or visual knowledge would be unprotected.

Adapters are not offered: a step of two factors is none of their product. At work are four
quantities of the same size as an MLP's hidden width squared for each layer of the window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unsee.data.records import Split
from unsee.losses import mean_squared_states, representation_deviation
from unsee.method import Terms, Trained
from unsee.methods import METHODS
from unsee.models.hooks import captured
from unsee.models.load import VLM
from unsee.neurons import key_covariances
from unsee.reference import Reference
from unsee.sampling import PairBatch, Rows, drawn_records
from unsee.settings import Space, Span
from unsee.tracing import causal_effects, strongest_window


def relaxed_null_space(
    covariance: Float[Tensor, "key key"], *, relaxation: float
) -> Float[Tensor, "key key"]:
    """P: leaves directions without keys, and shrinks the others the more, the more keys they have.

    Args:
        covariance: Mean of k k^T; symmetric, no eigenvalue below 0.
        relaxation: > 0; towards 0 nothing is left but the null space, towards infinity everything.

    Returns:
        Symmetric, with eigenvalues from relaxation / (1 + relaxation) to 1.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    values = values.clamp(min=0)
    left = relaxation / (values / values.max().clamp(min=1e-30) + relaxation)
    return (vectors * left @ vectors.mT).to(covariance.dtype)


@dataclass(frozen=True)
class State:
    """Made once a run from the starting model.

    Attributes:
        layers: Paths of the window's layers.
        projectors: Name of a weight -> P, (key, key).
        reference: The starting model.
    """

    layers: tuple[str, ...]
    projectors: Mapping[str, Tensor]
    reference: Reference


@METHODS.register("kuda")
class KUDA(Trained):
    """Knowledge unlearning by deviating representation (our reading of arXiv 2602.19275).

    The paper's values are not public to us; nothing is tuned on the built-in world yet.

    Attributes:
        lr: Peak learning rate.
        window: Language layers in a row that are changed.
        facts: Forget records on photos that causal effects are averaged over, at most.
        noise: On image tokens while facts are traced, in their standard deviations.
        temperature: Of the deviation; the lower, the harder what still points the old way is pushed
            and the sooner what does not is left.
        forget_weight: Weight of the deviation.
        retain_weight: Weight of the kept states.
        relaxation: How much of the step is left in directions that are kept; see the formula.
        keys: Kept records that the directions are taken from, at most.
    """

    kind: ClassVar[str] = "weights"
    space: ClassVar[Space] = {
        **Trained.space,
        "lr": Span(1e-5, 3e-2),
        "relaxation": Span(0.01, 1),
    }

    lr: float = Field(1e-4, gt=0)
    window: int = Field(3, ge=1)
    facts: int = Field(32, ge=1)
    noise: float = Field(3.0, gt=0)
    temperature: float = Field(0.5, gt=0)
    forget_weight: float = Field(1.0, gt=0)
    retain_weight: float = Field(1.0, ge=0)
    relaxation: float = Field(0.1, gt=0)
    keys: int = Field(512, ge=1)

    def trainable(self, vlm: VLM) -> list[str]:
        """The weights that read the neurons of every language layer; a window of them moves."""
        layers = vlm.layout.language_layer_paths(vlm.model)
        return [f"{layer}.{vlm.layout.language_mlp_out}.weight" for layer in layers]

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> State:
        """Window, directions and starting model; gradients are switched off outside the window."""
        facts = drawn_records(split.forget, self.facts, seed=seed, side="to forget", photos=True)
        effects = causal_effects(vlm, facts, noise=self.noise, seed=seed)
        chosen = strongest_window(effects, self.window)
        names, layers = self.trainable(vlm), vlm.layout.language_layer_paths(vlm.model)
        for number, name in enumerate(names):
            vlm.model.get_parameter(name).requires_grad_(number in chosen)
        kept = (*split.retain, *split.general, *split.visible)
        records = drawn_records(kept, self.keys, seed=seed, side="to keep", photos=False)
        readers = [names[number].removesuffix(".weight") for number in chosen]
        found = key_covariances(vlm, records, readers)
        projectors = {
            f"{path}.weight": relaxed_null_space(covariance, relaxation=self.relaxation)
            for path, covariance in found.items()
        }
        window = tuple(layers[number] for number in chosen)
        return State(window, projectors, Reference.of(vlm))

    def loss(self, vlm: VLM, batch: PairBatch, state: State) -> Terms:
        """States of forgotten facts away from where they were, all others where they were."""

        def retain() -> dict[str, Tensor]:
            now, before = self._states(vlm, batch.keep, state)
            labels = batch.keep.batch.labels
            kept = [mean_squared_states(h, labels, h0) for h, h0 in zip(now, before, strict=True)]
            return {"states": self.retain_weight * torch.stack(kept).mean()}

        now, before = self._states(vlm, batch.forget, state)
        before = [_nudged(h0, batch.step) for h0 in before]
        labels, temperature = batch.forget.batch.labels, self.temperature
        away = [
            representation_deviation(h, labels, h0, temperature=temperature)
            for h, h0 in zip(now, before, strict=True)
        ]
        return Terms(
            forget={"deviation": self.forget_weight * torch.stack(away).mean()},
            retain=retain if self.retain_weight else {},
        )

    def constrain_step(self, vlm: VLM, before: Mapping[str, Tensor], state: State) -> None:
        """Projects the change of each weight onto directions that what is kept leaves free."""
        for name, projector in state.projectors.items():
            p = vlm.model.get_parameter(name)
            p.copy_(before[name] + (p - before[name]) @ projector.to(p))

    def _states(self, vlm: VLM, rows: Rows, state: State) -> tuple[list[Tensor], list[Tensor]]:
        """States behind the window's layers, (batch, seq, width) each: now, and at the start."""
        with state.reference.in_place(vlm):
            before = _run(vlm, rows, state.layers)
        return _run(vlm, rows, state.layers), before


def _run(vlm: VLM, rows: Rows, layers: tuple[str, ...]) -> list[Tensor]:
    # What lies behind the window is not run.
    with captured(vlm.model, {layer: layer for layer in layers}, stop=True) as outputs:
        vlm.model(**rows.batch.inputs(), use_cache=False, logits_to_keep=1)
    return [outputs[layer] for layer in layers]


def _nudged(states: Tensor, seed: int) -> Tensor:
    """A little beside: where it is, a state has the greatest cosine, and so no gradient."""
    draw = torch.randn(states.shape, generator=torch.Generator().manual_seed(seed))
    return states + 0.01 * states.float().std().to(states) * draw.to(states)
