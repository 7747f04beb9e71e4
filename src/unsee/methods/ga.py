"""GA: gradient ascent on the forget set, and nothing that holds the rest in place.

Jang et al. 2023, "Knowledge unlearning for mitigating privacy risks in language models",
https://arxiv.org/abs/2210.01504; the first baseline of MLLMU-Bench,
https://arxiv.org/abs/2410.22108.

    L = -CE(D_f)

The loss has no lower bound and no brake. It goes on when answers are long forgotten, and takes
everything else along: a model that answers nothing is what this method is known for.
"""

from typing import Any, ClassVar

from pydantic import Field

from unsee.answering import answer_logits
from unsee.finetuning import FineTuned
from unsee.losses import gradient_ascent
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.sampling import PairBatch


@METHODS.register("ga")
class GA(FineTuned):
    """Gradient ascent alone.

    The rate is usual for the method on language models; it is not tuned on the built-in world.

    Attributes:
        lr: Peak learning rate.
        visible_batch: 0: nothing is kept.
        retain_batch: 0.
        general_batch: 0.
    """

    keeps: ClassVar[bool] = False

    lr: float = Field(1e-5, gt=0)
    visible_batch: int = Field(0, ge=0, le=0)
    retain_batch: int = Field(0, ge=0, le=0)
    general_batch: int = Field(0, ge=0, le=0)

    def loss(self, vlm: VLM, batch: PairBatch, state: Any) -> Terms:
        """Ascent on forget answers."""
        ascent = gradient_ascent(*answer_logits(vlm, batch.forget.batch))
        return Terms(forget={"ascent": ascent}, retain={})
