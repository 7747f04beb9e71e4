"""GradDiff: gradient ascent on the forget set, descent on the retain set.

Liu et al. 2022, "Continual learning and private unlearning", https://arxiv.org/abs/2203.12817;
the multimodal baseline of MLLMU-Bench, https://arxiv.org/abs/2410.22108. The whole model is
trained, vision included, or low-rank adapters on all its linear layers.

    L = -CE(D_f) + retain_weight * CE(D_r)
"""

from typing import Any, ClassVar

from pydantic import Field

from unsee.answering import answer_logits
from unsee.finetuning import FineTuned, kept_answers, weighted
from unsee.losses import gradient_ascent
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.sampling import PairBatch
from unsee.settings import Space, Span


@METHODS.register("grad_diff")
class GradDiff(FineTuned):
    """Gradient difference, with both sides in every step.

    Rate and weight are those of the best of twenty trials on development people of the built-in
    world (benchmarks/grad_diff_tuning.py); a larger model wants its own.

    Attributes:
        lr: Peak learning rate.
        retain_weight: Weight of the retain loss.
    """

    space: ClassVar[Space] = {**FineTuned.space, "retain_weight": Span(0.3, 3)}

    lr: float = Field(1.42e-5, gt=0)
    retain_weight: float = Field(2.98, ge=0)

    def loss(self, vlm: VLM, batch: PairBatch, state: Any) -> Terms:
        """Ascent on forget answers, descent on all that is kept."""
        return Terms(
            forget={"ascent": gradient_ascent(*answer_logits(vlm, batch.forget.batch))},
            retain=weighted(self.retain_weight, answers=lambda: kept_answers(vlm, batch)),
        )
