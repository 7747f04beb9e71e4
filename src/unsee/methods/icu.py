"""ICU: ascent on what is still known, held in place by the nearest thing that is to be kept.

Tang et al. 2024, "Learn while unlearn: an iterative unlearning framework for generative language
models", https://arxiv.org/abs/2407.20271. With n(x) the kept record most like the forget record x:

    L = -forget_weight * CE(x)  +  retain_weight * CE(n(x))  +  kl_weight * KL(start || model)(n(x))

and x leaves the first term once it is forgotten.

The paper is on text; for photos, our reading: n(x) is the nearest by the state that the model comes
to at the end of photo and question, where the paper compares sentences, and takes another person's
photo under a like question. The paper looks after each epoch whether the BLEU or BERTScore of what
is generated has fallen far enough, and reports such scores too. Here nothing that is reported
decides: x counts as forgotten while its answer's margin, the score of the right token over the best
other one, is at or below `stop_margin` on the mean over tokens. It is read off the step's own pass,
so a record that comes back is pushed again and an interrupted run goes on the same. Strangers,
refusals and what is visible on the forget photos are kept by cross-entropy, as in every method
here; other people are, unless `retain_batch` says otherwise, through n(x) alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from unsee.answering import answer_logits
from unsee.data.records import Record, Split
from unsee.finetuning import FineTuned, kept_answers
from unsee.losses import (
    IGNORED_LABEL,
    answer_margin,
    cross_entropy,
    gradient_ascent,
    kl_to_reference,
)
from unsee.method import Terms
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.neighbours import joint_features, nearest
from unsee.reference import Reference
from unsee.sampling import PairBatch, drawn_records
from unsee.settings import Space, Span


@dataclass(frozen=True)
class State:
    """Made once a run from the starting model.

    Attributes:
        reference: The starting model.
        nearest: Forget record -> the kept record most like it.
    """

    reference: Reference
    nearest: Mapping[Record, Record]


@METHODS.register("icu")
class ICU(FineTuned):
    """Iterative contrastive unlearning (our reading of arXiv 2407.20271 for photos).

    The language model is trained, as in the paper, whose rate and weights these are; nothing is
    tuned on the built-in world yet.

    Attributes:
        lr: Peak learning rate.
        parts: What is trained.
        forget_weight: Weight of the ascent.
        retain_weight: Weight of descent on the nearest records, and on what a step keeps beside.
        kl_weight: Weight of the divergence from the starting model on the nearest records.
        stop_margin: Mean margin of an answer, in nats, at which a record counts as forgotten.
        pool: Kept records among which the nearest are looked for, at most.
        retain_batch: Further records on retain people a step.
    """

    space: ClassVar[Space] = {**FineTuned.space, "forget_weight": Span(0.3, 3)}

    lr: float = Field(5e-6, gt=0)
    parts: tuple[str, ...] = Field(("language", "head"), min_length=1)
    forget_weight: float = Field(1.0, gt=0)
    retain_weight: float = Field(0.5, ge=0)
    kl_weight: float = Field(1.0, ge=0)
    stop_margin: float = 0.0
    pool: int = Field(1024, ge=1)
    retain_batch: int = Field(0, ge=0)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> State:
        """The pairs, by the starting model's states."""
        pool = drawn_records(
            (*split.retain, *split.general), self.pool, seed=seed, side="to keep", photos=False
        )
        forget = list(dict.fromkeys(split.forget))
        found = nearest(joint_features(vlm, forget), joint_features(vlm, pool))
        pairs = {
            record: pool[number] for record, number in zip(forget, found.tolist(), strict=True)
        }
        return State(Reference.of(vlm), pairs)

    def loss(self, vlm: VLM, batch: PairBatch, state: State) -> Terms:
        """Ascent on what is still known; descent and divergence on the nearest records."""
        logits, labels = answer_logits(vlm, batch.forget.batch)
        forgotten = answer_margin(logits.detach(), labels) <= self.stop_margin
        active = labels.masked_fill(forgotten[:, None], IGNORED_LABEL)
        return Terms(
            forget={"ascent": self.forget_weight * gradient_ascent(logits, active)},
            retain=lambda: self._retain(vlm, batch, state),
        )

    def _retain(self, vlm: VLM, batch: PairBatch, state: State) -> dict[str, Tensor]:
        near = [state.nearest[record] for record in batch.forget.records]
        rows = replace(batch.forget, records=tuple(near)).batch
        terms: dict[str, Tensor] = {}
        logits, labels = answer_logits(vlm, rows)
        if self.kl_weight:
            with state.reference.in_place(vlm):
                before, _ = answer_logits(vlm, rows)
            terms["divergence"] = self.kl_weight * kl_to_reference(logits, labels, before)
        if self.retain_weight:
            terms["nearest"] = self.retain_weight * cross_entropy(logits, labels)
            terms["answers"] = self.retain_weight * kept_answers(vlm, batch)
        return terms
