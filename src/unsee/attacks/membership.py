"""Was this photo, with this question, trained on? Asked of the probabilities, not of the answers.

Shokri et al. 2017, https://arxiv.org/abs/1610.05820; the scores are those of OpenUnlearning
(https://arxiv.org/abs/2506.12618), formulas in `unsee.metrics.membership`. Members are pairs of
`forget_seen`, which base was trained on; the others are pairs of `forget_unseen`: the same people
and the same facts on photos and in wordings that no model ever saw. The two differ in wordings, and
a model that never saw either may tell them by that: what gold tells is what counts as nothing.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from unsee.answering import answer_logits
from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given, Group, Signals
from unsee.data.collate import IGNORED_LABEL, encode
from unsee.data.records import Record
from unsee.losses import answer_token_logprobs, answer_token_zscores, cross_entropy
from unsee.metrics.membership import lowest_mean, per_zlib_byte
from unsee.models.load import VLM
from unsee.models.passes import asking, scoring
from unsee.settings import Settings

MEMBERS, OTHERS = "forget_seen", "forget_unseen"
_PAIRS_A_PASS = 32


@ATTACKS.register("membership")
class Membership(Settings):
    """Loss, zlib, Min-K, Min-K++ and gradient norm on pairs seen and never seen.

    Where a model that never knew is audited too, the loss beside its loss on the same pair is a
    sixth score (`reference`).

    Attributes:
        pairs: Pairs a side at most, drawn.
        share: Of an answer's tokens that Min-K and Min-K++ look at.
        parts: Whose gradient is taken, as in `unsee.finetuning.FineTuned`.
    """

    group: ClassVar[Group] = "membership"

    pairs: int = Field(100, ge=1)
    share: float = Field(0.2, gt=0, le=1)
    parts: tuple[str, ...] = Field(("projector",), min_length=1)

    def signals(self, vlm: VLM, given: Given) -> Signals | str:
        """Five scores of each pair."""
        sides = {name: self._drawn(given, name) for name in (MEMBERS, OTHERS)}
        missing = [name for name, pairs in sides.items() if not pairs]
        if missing:
            return f"there are no open questions on photos in {' and '.join(missing)}"
        records = [record for pairs in sides.values() for record in pairs]
        logprobs, zscores = _tokens(vlm, records)
        means = np.array([float(np.mean(row)) for row in logprobs])
        return Signals(
            member=np.arange(len(records)) < len(sides[MEMBERS]),
            subjects=tuple(record.subject for record in records),
            scores={
                "loss": means,
                "zlib": np.array(
                    [per_zlib_byte(m, r.answer) for m, r in zip(means, records, strict=True)]
                ),
                "min_k": np.array([lowest_mean(row, self.share) for row in logprobs]),
                "min_k++": np.array([lowest_mean(row, self.share) for row in zscores]),
                "gradient_norm": self._gradients(vlm, records),
            },
        )

    def rows(self, questions: int) -> int:
        """Rows whose gradient is taken on one model."""
        return 2 * self.pairs

    def _drawn(self, given: Given, name: str) -> list[Record]:
        pairs = [
            record
            for record in given.split.audit.get(name, ())
            if record.form == "open" and record.image is not None
        ]
        rng = random.Random(f"membership-{given.seed}-{name}")
        return rng.sample(pairs, min(self.pairs, len(pairs)))

    def _gradients(self, vlm: VLM, records: Sequence[Record]) -> NDArray[np.float64]:
        """-||d loss / d w|| of each pair."""
        norms = []
        with _moving(vlm, vlm.layout.parameter_names(vlm.model, self.parts)) as weights:
            for record in records:
                batch = encode(vlm, [record], answers=True, side="right").to(vlm.device)
                with scoring(batch.labels == IGNORED_LABEL), asking([record.form]):
                    loss = cross_entropy(*answer_logits(vlm, batch))
                own = torch.autograd.grad(loss, weights, allow_unused=True)
                total = sum(g.float().square().sum().item() for g in own if g is not None)
                norms.append(-(total**0.5))
        return np.array(norms)


def _tokens(vlm: VLM, records: Sequence[Record]) -> tuple[list[list[float]], list[list[float]]]:
    """Log-probability and z-score of each token of each answer."""
    logprobs, zscores = [], []
    for start in range(0, len(records), _PAIRS_A_PASS):
        part = records[start : start + _PAIRS_A_PASS]
        batch = encode(vlm, part, answers=True, side="right").to(vlm.device)
        told = scoring(batch.labels == IGNORED_LABEL), asking([record.form for record in part])
        with torch.inference_mode(), told[0], told[1]:
            logits, labels = answer_logits(vlm, batch)
            logprob, scored = answer_token_logprobs(logits, labels)
            zscore = answer_token_zscores(logits, labels)
        logprobs += [row[kept].tolist() for row, kept in zip(logprob, scored, strict=True)]
        zscores += [row[kept].tolist() for row, kept in zip(zscore, scored, strict=True)]
    return logprobs, zscores


@contextmanager
def _moving(vlm: VLM, names: Sequence[str]) -> Iterator[list[nn.Parameter]]:
    """Lets gradients reach some parameters alone; flags are put back on the way out."""
    flags = {name: p.requires_grad for name, p in vlm.model.named_parameters()}
    parameters = dict(vlm.model.named_parameters())
    try:
        vlm.model.requires_grad_(False)
        yield [parameters[name].requires_grad_(True) for name in names]
    finally:
        for name, p in vlm.model.named_parameters():
            p.requires_grad_(flags[name])
