"""SineProject: whatever the loss, the projector moves within a sine of its weights.

Garg et al. 2025, "SineProject: machine unlearning for stable vision-language alignment",
https://arxiv.org/abs/2511.18444. Unlearning leaves a projector's Jacobian ill-conditioned, and the
model then refuses harmless requests too. With W_0 the projector's weights, which stay, and V what
is trained in their place:

    W = W_0 + sin(V)
    L = forget_loss(D_f) + retain_weight * CE(D_r)

The bound is one of the loop (`BoundsWeights`), which any method may ask for; here it comes with
three losses. Our reading: V begins at 0, so training begins at the starting model; linear layers
are bounded, their biases and norms frozen; the language model is trained beside, in full or by
adapters, and the vision tower is not, as when LLaVA is tuned.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.errors import LayoutError
from unsee.finetuning import FineTuned, kept_answers, weighted
from unsee.losses import gradient_ascent, npo, sequence_logprob, unlikelihood
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.reference import Reference
from unsee.sampling import PairBatch
from unsee.settings import Space, Span


@METHODS.register("sineproject")
class SineProject(FineTuned):
    """The projector as W + sin(V), under a loss of choice (arXiv 2511.18444).

    The paper's rates are not public to us; nothing is tuned on the built-in world yet.

    Attributes:
        lr: Peak learning rate.
        parts: What is trained beside the projector; may be empty.
        forget_loss: `ascent`, `npo`, or `unlikelihood` (bounded ascent).
        beta: Inverse temperature of `npo`.
        retain_weight: Weight of the retain loss.
    """

    space: ClassVar[Space] = {
        **FineTuned.space,
        "lr": Span(1e-6, 1e-2),
        "retain_weight": Span(0.3, 3),
    }

    lr: float = Field(2e-5, gt=0)
    parts: tuple[str, ...] = Field(("language", "head"))
    forget_loss: Literal["ascent", "npo", "unlikelihood"] = "npo"
    beta: float = Field(0.1, gt=0)
    retain_weight: float = Field(1.0, ge=0)

    def sine_targets(self, vlm: VLM) -> list[str]:
        """Full paths of the projector's linear layers.

        Raises:
            LayoutError: If it has none, as in gemma3, whose projector is a bare matrix.
        """
        names = vlm.layout.parameter_names(vlm.model, ["projector"])
        paths = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
        modules = dict(vlm.model.named_modules())
        linear = [path for path in paths if isinstance(modules.get(path), nn.Linear)]
        if not linear:
            raise LayoutError(
                f"sineproject: expected linear layers in the projector of {vlm.layout.family}, got "
                "none; choose another method"
            )
        return linear

    def trainable(self, vlm: VLM) -> list[str]:
        """Full names of every parameter in `parts`, but for what the sine bounds."""
        bounded = {f"{path}.weight" for path in self.sine_targets(vlm)}
        return [name for name in super().trainable(vlm) if name not in bounded]

    def lora_targets(self, vlm: VLM) -> list[str]:
        """Full paths of every linear layer in `parts`, but for what the sine bounds."""
        bounded = set(self.sine_targets(vlm))
        return [path for path in super().lora_targets(vlm) if path not in bounded]

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Reference | None:
        """The starting model, for `npo`."""
        return Reference.of(vlm) if self.forget_loss == "npo" else None

    def loss(self, vlm: VLM, batch: PairBatch, state: Reference | None) -> Terms:
        """The forget loss, and descent on all that is kept."""
        return Terms(
            forget={self.forget_loss: self._forget(vlm, batch, state)},
            retain=weighted(self.retain_weight, answers=lambda: kept_answers(vlm, batch)),
        )

    def _forget(self, vlm: VLM, batch: PairBatch, reference: Reference | None) -> Tensor:
        rows = batch.forget.batch
        if reference is None:
            losses = {"ascent": gradient_ascent, "unlikelihood": unlikelihood}
            return losses[self.forget_loss](*answer_logits(vlm, rows))
        with reference.in_place(vlm):
            before = sequence_logprob(*answer_logits(vlm, rows))
        return npo(sequence_logprob(*answer_logits(vlm, rows)), before, beta=self.beta)
