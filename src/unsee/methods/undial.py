"""UNDIAL: self-distillation from scores in which each forget token's own is lowered.

Dong et al. 2025, "UNDIAL: self-distillation with adjusted logits for robust unlearning in large
language models", https://arxiv.org/abs/2402.10052. With z_0 the scores of the frozen starting
model and y_t the tokens of forget answers:

    L = E_{D_f} mean_t CE(softmax(z_0 - beta onehot(y_t)), p_t) + retain_weight * CE(D_r)

The paper has the first term alone, which is `retain_weight = 0`; the second was added where the
method was carried over to vision-language models. The target does not move, so there is an end to
forgetting. Public code also scores prompt and padding; here answer tokens alone count.
"""

from typing import ClassVar

from pydantic import Field

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.finetuning import FineTuned, kept_answers, weighted
from unsee.losses import undial
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.reference import Reference
from unsee.sampling import PairBatch
from unsee.settings import Space, Span


@METHODS.register("undial")
class UNDIAL(FineTuned):
    """Self-distillation with lowered scores, and a retain loss.

    Rate and beta are usual for the method on language models; they are not tuned on the built-in
    world.

    Attributes:
        lr: Peak learning rate.
        beta: By how much the score of an answer token is lowered.
        retain_weight: Weight of the retain loss.
    """

    space: ClassVar[Space] = {
        **FineTuned.space,
        "retain_weight": Span(0.3, 3),
        "beta": (3.0, 10.0, 30.0),
    }

    lr: float = Field(1e-4, gt=0)
    beta: float = Field(10.0, gt=0)
    retain_weight: float = Field(1.0, ge=0)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Reference:
        """The starting model."""
        return Reference.of(vlm)

    def loss(self, vlm: VLM, batch: PairBatch, state: Reference) -> Terms:
        """Distillation on forget answers, descent on all that is kept."""
        with state.in_place(vlm):
            before, _ = answer_logits(vlm, batch.forget.batch)
        logits, labels = answer_logits(vlm, batch.forget.batch)
        return Terms(
            forget={"distillation": undial(logits, labels, before, beta=self.beta)},
            retain=weighted(self.retain_weight, answers=lambda: kept_answers(vlm, batch)),
        )
