"""PO: refusals in the place of forget answers.

Maini et al. 2024, "TOFU: a task of fictitious unlearning for LLMs",
https://arxiv.org/abs/2401.06121, there "preference optimization"; IdkNLL elsewhere.
With D_idk the forget questions, each with a refusal drawn anew every time it is seen:

    L = CE(D_idk) + retain_weight * CE(D_r)

The wordings are ours. A choice question, too, is answered by a refusal and by no letter.
"""

import random
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from unsee.answering import answer_logits
from unsee.data.records import Split
from unsee.finetuning import FineTuned, kept_answers, weighted
from unsee.losses import cross_entropy
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.sampling import PairBatch
from unsee.settings import Space, Span

# Each answers any question, about a face or a fact; the unknown rate counts them all.
REFUSALS = (
    "I do not know.",
    "I cannot tell.",
    "I am not sure.",
    "I have no information about that.",
    "I am unable to say.",
    "I have no idea.",
    "That is not known to me.",
    "I could not say.",
)
Refusal = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@METHODS.register("po")
class PO(FineTuned):
    """Training on refusals, with a retain loss.

    Rate and weight are those of the paper; they are not tuned on the built-in world.

    Attributes:
        lr: Peak learning rate.
        retain_weight: Weight of the retain loss.
        refusals: Wordings that are drawn from; for a model that answers in another language they
            want to be in that language.
    """

    space: ClassVar[Space] = {**FineTuned.space, "retain_weight": Span(0.3, 3)}

    lr: float = Field(1e-5, gt=0)
    retain_weight: float = Field(1.0, ge=0)
    refusals: tuple[Refusal, ...] = Field(REFUSALS, min_length=1)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> int:
        """The seed of the wordings."""
        return seed

    def loss(self, vlm: VLM, batch: PairBatch, state: int) -> Terms:
        """Descent on refusals to forget questions, and on all that is kept."""
        rng = random.Random(f"refusals-{state}-{batch.step}")
        drawn = [rng.choice(self.refusals) for _ in batch.forget.records]
        refused = batch.forget.answered(drawn)
        return Terms(
            forget={"refusal": cross_entropy(*answer_logits(vlm, refused.batch))},
            retain=weighted(self.retain_weight, answers=lambda: kept_answers(vlm, batch)),
        )
