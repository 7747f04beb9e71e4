"""MMUnlearner: gradient difference whose ascent follows salient weights only.

Huo et al. 2025, "MMUnlearner: reformulating multimodal machine unlearning in the era of multimodal
large language models", https://arxiv.org/abs/2502.11051. With G(D) the squared gradients of the
mean batch loss, averaged over batches of D:

    m  = 1[ (G(D_f) + 1e-15) / (G(D_r) + 1e-15) >= mask_threshold ]
    step along  m * grad CE(D_f)  -  retain_weight * grad CE(D_r)

What the mask is to spare, D_r, is here all that a step keeps: other people, strangers, refusals and
what anyone sees on the forget photos. The authors take photos of other people and text-only
questions, also on the people to forget. They clip both gradients apart and step twice; here both
are added and clipped once. In their code, weights that are in no mask follow the forget gradient
freely, as all do under LoRA; here every trained weight is masked, and under LoRA every entry of the
factors. The factor that begins at 0 holds back the gradient of the other, whose entries all tie at
first and so are salient up to a threshold of 1.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.finetuning import FineTuned, kept_answers
from unsee.losses import gradient_ascent
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.saliency import apply_mask, fisher_ratio_mask
from unsee.sampling import PairBatch, Sampler
from unsee.settings import Space, Span

Mask = Mapping[str, Tensor]


@METHODS.register("mmunlearner")
class MMUnlearner(FineTuned):
    """Gradient difference with a saliency mask on the ascent (arXiv 2502.11051).

    Rate and threshold are the paper's; nothing is tuned on the built-in world yet.

    Attributes:
        lr: Peak learning rate.
        retain_weight: Weight of the retain loss, > 0.
        mask_threshold: Ratio of forget to retain Fisher information from which a weight is salient.
        mask_batches: Batches that the Fisher information is averaged over.
    """

    space: ClassVar[Space] = {
        **FineTuned.space,
        "retain_weight": Span(0.3, 3),
        "mask_threshold": Span(0.5, 4),
    }

    lr: float = Field(1e-5, gt=0)
    retain_weight: float = Field(1.0, gt=0)
    mask_threshold: float = Field(1.0, gt=0)
    mask_batches: int = Field(8, ge=1)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Mask:
        """The mask, by the starting model's gradients: name -> 0 or 1, in the weight's shape."""
        sampler = Sampler(vlm, split, self, seed)
        return fisher_ratio_mask(
            vlm, sampler, batches=self.mask_batches, threshold=self.mask_threshold
        )

    def loss(self, vlm: VLM, batch: PairBatch, state: Mask) -> Terms:
        """Ascent on forget answers, descent on all that is kept."""
        return Terms(
            forget={"ascent": gradient_ascent(*answer_logits(vlm, batch.forget.batch))},
            retain=lambda: {"answers": self.retain_weight * kept_answers(vlm, batch)},
        )

    def mask_forget(self, vlm: VLM, state: Mask) -> None:
        """Zeroes the forget gradient of weights that what is kept depends on more."""
        apply_mask(vlm, state)
