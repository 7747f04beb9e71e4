"""KVW: weaken what neurons write that answer more to the forget set than to what is kept.

Kim et al. 2026, "Knowledge vector weakening: efficient training-free unlearning for large
vision-language models", https://arxiv.org/abs/2601.21794. No training and no gradients. The column
v_n of the layer that reads neuron n of an MLP is a knowledge vector; the neuron's output is its
coefficient. With c_n(D) the mean of |coefficient| over the positions of D from which answers are
read off, e = 1e-12:

    g_n = exp( -gamma * max(0, log(c_n(D_f) + e) - log(c_n(D_r) + e)) )
    v_n <- g_n v_n

batch by batch of the forget set, c_n(D_f) measured on the model as the batches before left it and
c_n(D_r) once on the starting model. So a neuron that answers twice as much to the forget set loses
2^-gamma of its vector's length with each batch.

The formulas are those of the authors' code, whose loop drops the error of a wrong unpacking and
with it, for every model that has not two layers, the weakening itself. They leave out the first
language layer and the last two of 28; here the first one only.
"""

import random
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unsee.data.records import Split
from unsee.method import Progress
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.neurons import neuron_readers, responses
from unsee.sampling import drawn_records
from unsee.settings import Settings, Space, Span

_FLOOR = 1e-12


def gates(
    forget: Float[Tensor, " neuron"], retain: Float[Tensor, " neuron"], *, gamma: float
) -> Float[Tensor, " neuron"]:
    """What is left of each knowledge vector.

    Args:
        forget: Coefficients on the forget set, >= 0.
        retain: On what is kept, >= 0.
        gamma: How much is taken, >= 0.

    Returns:
        (retain / forget) ** gamma where that is below 1; 1 elsewhere.
    """
    surplus = (forget + _FLOOR).log() - (retain + _FLOOR).log()
    return (-gamma * surplus.clamp(min=0)).exp()


@METHODS.register("kvw")
class KVW(Settings):
    """Knowledge vector weakening (arXiv 2601.21794); no training.

    Strength and batches are those of the authors' code; nothing is tuned on the built-in world yet.

    Attributes:
        parts: Language layers whose knowledge vectors are weakened.
        gamma: How much a batch takes from a vector, for a given ratio of coefficients.
        epochs: Times that the forget set is gone through.
        records: Records to keep that coefficients are averaged over, at most.
        batch_size: Forget records between two weakenings, and records a forward pass.
    """

    kind: ClassVar[str] = "weights"
    space: ClassVar[Space] = {"gamma": Span(0.002, 0.5), "epochs": (1, 2, 4)}

    parts: tuple[str, ...] = Field(("language.layers[1:]",), min_length=1)
    gamma: float = Field(0.02, gt=0)
    epochs: int = Field(1, ge=1)
    records: int = Field(512, ge=1)
    batch_size: int = Field(1, ge=1)

    def editable(self, vlm: VLM) -> list[str]:
        """Weights of the layers that read the neurons."""
        return [f"{path}.weight" for path in neuron_readers(vlm, self.parts)]

    def edit(
        self, vlm: VLM, split: Split, *, seed: int, progress: Progress | None = None
    ) -> tuple[str, ...]:
        """Measure what is kept once, then weaken batch by batch of the forget set."""
        readers = neuron_readers(vlm, self.parts)
        forget = drawn_records(split.forget, None, seed=seed, side="to forget", photos=False)
        kept = drawn_records(
            (*split.retain, *split.general), self.records, seed=seed, side="to keep", photos=False
        )
        total, done = len(kept) + self.epochs * len(forget), 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress("weaken", done, total)

        retain = responses(vlm, kept, readers, answers_only=True, told=told)
        weights = {path: vlm.model.get_submodule(path).weight for path in readers}
        before = {path: weight.detach().clone() for path, weight in weights.items()}
        # Kept apart: in half precision many gates are 1, one by one, and their product is not.
        left = {path: torch.ones(before[path].shape[1], dtype=torch.float64) for path in readers}
        rng = random.Random(seed)
        for _ in range(self.epochs):
            order = rng.sample(forget, len(forget))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                found = responses(
                    vlm, batch, readers, answers_only=True, batch_size=self.batch_size, told=told
                )
                for path, weight in weights.items():
                    left[path] *= gates(found[path].mean, retain[path].mean, gamma=self.gamma)
                    with torch.no_grad():
                        weight.copy_(before[path].float() * left[path].float().to(weight.device))
        return tuple(f"{p}.weight" for p in readers if not torch.equal(weights[p], before[p]))
