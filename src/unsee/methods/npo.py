"""NPO: forget answers are dispreferred, beside the starting model, and ascent brakes itself.

Zhang et al. 2024, "Negative preference optimization: from catastrophic collapse to effective
unlearning", https://arxiv.org/abs/2404.05868, equation 3, with a retain loss.
With p_0 the frozen starting model and log p(y) summed over the tokens of an answer:

    L = -(2 / beta) E_{D_f} log sigmoid(-beta log(p(y) / p_0(y))) + retain_weight * CE(D_r)

Public code of MLLMU-Bench puts a model trained on D_r in the place of p_0, and a batch's mean
cross-entropy in that of log p(y), which changes beta by the length of answers.
"""

from typing import ClassVar

from pydantic import Field

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.finetuning import FineTuned, kept_answers, weighted
from unsee.losses import npo, sequence_logprob
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.reference import Reference
from unsee.sampling import PairBatch
from unsee.settings import Space, Span


@METHODS.register("npo")
class NPO(FineTuned):
    """Negative preference optimisation with a retain loss.

    Rate, beta and weight are usual for the method on language models; they are not tuned on the
    built-in world.

    Attributes:
        lr: Peak learning rate.
        beta: Inverse temperature; the larger, the sooner ascent brakes.
        retain_weight: Weight of the retain loss.
    """

    space: ClassVar[Space] = {
        **FineTuned.space,
        "retain_weight": Span(0.3, 3),
        "beta": (0.05, 0.1, 0.5, 1.0),
    }

    lr: float = Field(1e-5, gt=0)
    beta: float = Field(0.1, gt=0)
    retain_weight: float = Field(1.0, ge=0)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Reference:
        """The starting model."""
        return Reference.of(vlm)

    def loss(self, vlm: VLM, batch: PairBatch, state: Reference) -> Terms:
        """Dispreference of forget answers, descent on all that is kept."""
        with state.in_place(vlm):
            before = sequence_logprob(*answer_logits(vlm, batch.forget.batch))
        now = sequence_logprob(*answer_logits(vlm, batch.forget.batch))
        return Terms(
            forget={"dispreference": npo(now, before, beta=self.beta)},
            retain=weighted(self.retain_weight, answers=lambda: kept_answers(vlm, batch)),
        )
