"""KL-Min: gradient ascent on the forget set, predictions on the retain set held as they were.

Maini et al. 2024, "TOFU: a task of fictitious unlearning for LLMs",
https://arxiv.org/abs/2401.06121. With p_0 the frozen starting model:

    L = -CE(D_f) + retain_weight * E_{D_r} KL(p_0 || p)

The divergence is the mean over answer tokens, in nats. Public code of MLLMU-Bench divides by the
batch alone, so that its weight grows with the length of answers, and adds CE(D_r).
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.finetuning import FineTuned, weighted
from unsee.losses import gradient_ascent, kl_to_reference
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.reference import Reference
from unsee.sampling import PairBatch
from unsee.settings import Space, Span


@METHODS.register("kl_min")
class KLMin(FineTuned):
    """Gradient ascent with a divergence from the starting model on all that is kept.

    Rate and weight are those of the paper; they are not tuned on the built-in world.

    Attributes:
        lr: Peak learning rate.
        retain_weight: Weight of the divergence.
    """

    space: ClassVar[Space] = {**FineTuned.space, "retain_weight": Span(0.3, 3)}

    lr: float = Field(1e-5, gt=0)
    retain_weight: float = Field(1.0, ge=0)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Reference:
        """The starting model."""
        return Reference.of(vlm)

    def loss(self, vlm: VLM, batch: PairBatch, state: Reference) -> Terms:
        """Ascent on forget answers, divergence on kept ones."""

        def divergence() -> Tensor:
            with state.in_place(vlm):
                before, _ = answer_logits(vlm, batch.keep.batch)
            return kl_to_reference(*answer_logits(vlm, batch.keep.batch), before)

        return Terms(
            forget={"ascent": gradient_ascent(*answer_logits(vlm, batch.forget.batch))},
            retain=weighted(self.retain_weight, divergence=divergence),
        )
