"""GradDiff: gradient ascent on the forget set, descent on the retain set.

Liu et al. 2022, "Continual learning and private unlearning", https://arxiv.org/abs/2203.12817;
the multimodal baseline of MLLMU-Bench, https://arxiv.org/abs/2410.22108. The whole model is
trained, vision included, or low-rank adapters on all its linear layers.

    L = -CE(D_f) + retain_weight * CE(D_r)
"""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.losses import cross_entropy, gradient_ascent
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.sampling import PairBatch
from unsee.train import Terms, Trained


@METHODS.register("grad_diff")
class GradDiff(Trained):
    """Gradient difference, with both sides in every step.

    Rate and weight are those of the best of twenty trials on development people of the built-in
    world (benchmarks/grad_diff_tuning.py); a larger model wants its own.

    Attributes:
        lr: Peak learning rate.
        retain_weight: Weight of the retain loss.
        lora_rank: Rank of adapters on every linear layer of tower, projector and language model;
            0 trains all weights.
    """

    kind: ClassVar[str] = "weights"

    lr: float = Field(1.42e-5, gt=0)
    retain_weight: float = Field(2.98, ge=0)
    lora_rank: int = Field(0, ge=0)

    def trainable(self, vlm: VLM) -> list[str]:
        """Everything."""
        return vlm.layout.parameter_names(vlm.model, ["vision", "projector", "language", "head"])

    def lora_targets(self, vlm: VLM) -> list[str]:
        """Every linear layer of tower, projector and language model, by full path; not the head."""
        names = vlm.layout.parameter_names(vlm.model, ["vision", "projector", "language"])
        modules = dict(vlm.model.named_modules())
        paths = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
        return [path for path in paths if isinstance(modules[path], nn.Linear)]

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> None:
        """Needs nothing."""

    def loss(self, vlm: VLM, batch: PairBatch, state: Any) -> Terms:
        """Ascent on forget answers, descent on all that is kept."""
        forget = {"ascent": gradient_ascent(*answer_logits(vlm, batch.forget.batch))}
        if not self.retain_weight:
            return Terms(forget=forget, retain={})

        def retain() -> dict[str, Tensor]:
            kept = cross_entropy(*answer_logits(vlm, batch.keep.batch))
            return {"answers": self.retain_weight * kept}

        return Terms(forget=forget, retain=retain)
