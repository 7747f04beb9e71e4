"""What published baselines train: parts of the model, or low-rank adapters on them."""

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.errors import LayoutError
from unsee.losses import cross_entropy
from unsee.method import Scalars, Trained
from unsee.models.load import VLM
from unsee.sampling import PairBatch


class FineTuned(Trained):
    """Settings of a method that trains parts of the model, all of it unless told otherwise.

    Attributes:
        parts: What is trained: vision, projector, language, head, or some blocks or layers, such
            as `language.layers[-4:]`.
        lora_rank: Rank of adapters on every linear layer of `parts`, the head left out; 0 trains
            the weights themselves.
    """

    kind: ClassVar[str] = "weights"

    parts: tuple[str, ...] = Field(("vision", "projector", "language", "head"), min_length=1)
    lora_rank: int = Field(0, ge=0)

    def trainable(self, vlm: VLM) -> list[str]:
        """Full names of every parameter in `parts`."""
        return vlm.layout.parameter_names(vlm.model, self.parts)

    def lora_targets(self, vlm: VLM) -> list[str]:
        """Full paths of every linear layer in `parts`, the head left out.

        Raises:
            LayoutError: If there is none.
        """
        parts = [part for part in self.parts if part != "head"]
        names = vlm.layout.parameter_names(vlm.model, parts)
        modules = dict(vlm.model.named_modules())
        paths = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
        linear = [path for path in paths if isinstance(modules[path], nn.Linear)]
        if not linear:
            raise LayoutError(
                f"lora_rank={self.lora_rank}: no linear layer in parts {', '.join(self.parts)}; "
                "add vision, projector or language, or set lora_rank to 0"
            )
        return linear

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Any:
        """Needs nothing."""


def kept_answers(vlm: VLM, batch: PairBatch) -> Tensor:
    """Cross-entropy on all that is kept, in nats: the retain term of most baselines."""
    return cross_entropy(*answer_logits(vlm, batch.keep.batch))


def weighted(weight: float, **terms: Callable[[], Tensor]) -> Scalars | Callable[[], Scalars]:
    """One side of a step's terms, made when the loop asks for them.

    Args:
        weight: Times which they are taken, >= 0; at 0 there are none, and nothing is run.
        **terms: What makes each of them, by name.
    """
    return (lambda: {name: weight * term() for name, term in terms.items()}) if weight else {}
