"""UnLOK-VQA's six deletion objectives: one matrix of the language model, six forget terms.

Patil et al. 2024, "Unlearning sensitive information in multimodal LLMs: benchmark and
attack-defense evaluation", https://arxiv.org/abs/2505.01456, after Patil et al. 2023, "Can
sensitive information be deleted from LLMs?", https://arxiv.org/abs/2309.17410. With p(y | x) the
geometric mean of an answer's tokens and D_l the readout of language layer l (`unsee.lens`):

    fact_erasure      E_{D_f} p(y | x)
    empty_response    CE("I do not know." | x)
    error_injection   CE(y* | x),  y* what is true of somebody else
    head_projection   mean_l E_{D_f} max(0, D_l(y) - k-th most) + max(0, k-th least - D_l(y))
    max_entropy       mean_l E_{D_f} -H(D_l)
    input_rephrasing  E_{D_f} p(y | x) over x and x in other words

    L = that + retain_weight * CE(D_r)

As in the paper, adapters are trained on the matrix that reads the neurons of one MLP, about a fifth
of the way up, and the last third of the layers is defended.

Its trainer is not public; formulas are those of the earlier paper's code. That deletes one fact at
a time and holds the rest by a divergence on one neutral prompt and by decay. Here many facts are
deleted at once, and all that is kept is held by cross-entropy, as in every method here. Answers
there are single tokens; here a layer is read at the tokens in which an answer parts from the others
that are known to the same question, as `head_projection` and its like attack it. Rank of the
adapters, the texts around a question, and how y* is drawn are ours.
"""

import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, StringConstraints
from torch import Tensor

from unsee.answering import answer_logits
from unsee.data.records import LETTERS, Record, Split
from unsee.errors import ConfigError, DataError
from unsee.finetuning import kept_answers, weighted
from unsee.lens import answer_tokens, branches, lens, where_answers_part
from unsee.losses import (
    answer_probability,
    cross_entropy,
    negative_entropy,
    out_of_extremes,
)
from unsee.method import Terms, Trained
from unsee.methods import METHODS
from unsee.metrics.answers import is_unknown, normalise
from unsee.models.hooks import captured
from unsee.models.load import VLM
from unsee.sampling import PairBatch, Rows
from unsee.settings import QUESTION, Framing, Space, Span

# What is asked, however it is worded.
Matter = tuple[str, str]
# Answer tokens behind which known answers part.
Prefixes = Set[tuple[int, ...]]
Wordings = Mapping[Matter, Sequence[str]]


class _Deletion(Trained):
    """What the six objectives share.

    Attributes:
        lr: Peak learning rate.
        layer: Language layer, from 0, whose MLP's output matrix is trained; None for the one at
            7/32 of the depth.
        lora_rank: Rank of the adapter on it; 0 trains the matrix itself.
        retain_weight: Weight of the retain loss.
    """

    kind: ClassVar[str] = "weights"
    space: ClassVar[Space] = {
        **Trained.space,
        "lr": Span(1e-4, 3e-2),
        "retain_weight": Span(0.3, 3),
    }

    lr: float = Field(9e-3, gt=0)
    layer: int | None = Field(None, ge=0)
    lora_rank: int = Field(16, ge=0)
    retain_weight: float = Field(1.0, ge=0)

    def trainable(self, vlm: VLM) -> list[str]:
        """Full name of the one weight that moves."""
        return [f"{path}.weight" for path in self.lora_targets(vlm)]

    def lora_targets(self, vlm: VLM) -> list[str]:
        """Full path of the one matrix.

        Raises:
            ConfigError: If there is no such layer.
        """
        layers = vlm.layout.language_layer_paths(vlm.model)
        return [f"{layers[self._layer(vlm)]}.{vlm.layout.language_mlp_out}"]

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Any:
        """Needs nothing."""

    def loss(self, vlm: VLM, batch: PairBatch, state: Any) -> Terms:
        """The objective on forget answers, descent on all that is kept."""
        return Terms(
            forget=self._forget(vlm, batch, state),
            retain=weighted(self.retain_weight, answers=lambda: kept_answers(vlm, batch)),
        )

    @abstractmethod
    def _forget(self, vlm: VLM, batch: PairBatch, state: Any) -> dict[str, Tensor]:
        """The forget term by its name."""

    def _layer(self, vlm: VLM) -> int:
        count = len(vlm.layout.language_layer_paths(vlm.model))
        if self.layer is None:
            return round(7 / 32 * count)
        if self.layer >= count:
            raise ConfigError(
                f"method.layer: expected at most {count - 1} for {vlm.source}, got {self.layer}"
            )
        return self.layer


@METHODS.register("fact_erasure")
class FactErasure(_Deletion):
    """UnLOK-VQA: the right answer is made improbable."""

    def _forget(self, vlm: VLM, batch: PairBatch, state: None) -> dict[str, Tensor]:
        return {"probability": answer_probability(*answer_logits(vlm, batch.forget.batch))}


@METHODS.register("empty_response")
class EmptyResponse(_Deletion):
    """UnLOK-VQA: one reply that tells nothing, in the place of every forget answer.

    Attributes:
        response: That reply; for a model that answers in another language it wants to be in that
            language.
    """

    response: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = (
        "I do not know."
    )

    def _forget(self, vlm: VLM, batch: PairBatch, state: None) -> dict[str, Tensor]:
        emptied = batch.forget.answered([self.response] * len(batch.forget.records))
        return {"response": cross_entropy(*answer_logits(vlm, emptied.batch))}


@METHODS.register("error_injection")
class ErrorInjection(_Deletion):
    """UnLOK-VQA: what is true of somebody else, in the place of the right answer.

    What is drawn for a person stays the same on every photo and in every wording.
    """

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Mapping[Record, str]:
        """A wrong answer to each forget question."""
        return wrong_answers(split, seed=seed)

    def _forget(self, vlm: VLM, batch: PairBatch, state: Mapping[Record, str]) -> dict[str, Tensor]:
        injected = batch.forget.answered([state[record] for record in batch.forget.records])
        return {"error": cross_entropy(*answer_logits(vlm, injected.batch))}


class _Inside(_Deletion):
    """Objectives on what inner layers would answer.

    Attributes:
        defended: Last language layers that are read, none of them before the one that is trained;
            None for ten of 32.
    """

    defended: int | None = Field(None, ge=1)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> Mapping[Matter, Prefixes]:
        """Where the answers known to each question part.

        Raises:
            ConfigError: If a layer is to be read before the one that is trained.
        """
        self._paths(vlm)
        return _partings(vlm, (*split.forget, *split.retain))

    def _readouts(
        self, vlm: VLM, rows: Rows, state: Mapping[Matter, Prefixes]
    ) -> tuple[list[Tensor], Tensor]:
        """Each layer's scores where answers part, (token, vocab), and the right tokens."""
        batch = rows.batch
        known = [state.get(_matter(record), frozenset()) for record in rows.records]
        parted = where_answers_part(batch.labels, known)
        paths = self._paths(vlm)
        with captured(vlm.model, {path: path for path in paths}, stop=True) as states:
            vlm.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
        read = [lens(vlm, states[path][:, :-1][parted]) for path in paths]
        return read, batch.labels[:, 1:][parted]

    def _paths(self, vlm: VLM) -> list[str]:
        paths = vlm.layout.language_layer_paths(vlm.model)
        behind = len(paths) - self._layer(vlm)
        count = min(behind, -(-10 * len(paths) // 32)) if self.defended is None else self.defended
        if count > behind:
            raise ConfigError(
                f"method.defended: expected at most {behind} for {vlm.source}, the layers from the "
                f"one that is trained on, got {count}"
            )
        return paths[-count:]


@METHODS.register("head_projection")
class HeadProjection(_Inside):
    """UnLOK-VQA: the right answer is kept from the first and last places at inner layers.

    Attributes:
        top: Places at either end that it is kept from, k; as many as the paper's attack guesses at
            a layer.
    """

    top: int = Field(4, ge=1, le=100)

    def _forget(
        self, vlm: VLM, batch: PairBatch, state: Mapping[Matter, Prefixes]
    ) -> dict[str, Tensor]:
        read, tokens = self._readouts(vlm, batch.forget, state)
        losses = [out_of_extremes(scores, tokens, count=self.top) for scores in read]
        return {"extremes": torch.stack(losses).mean()}


@METHODS.register("max_entropy")
class MaxEntropy(_Inside):
    """UnLOK-VQA: inner layers are made to hold all tokens to be alike where they would answer."""

    def _forget(
        self, vlm: VLM, batch: PairBatch, state: Mapping[Matter, Prefixes]
    ) -> dict[str, Tensor]:
        read, _ = self._readouts(vlm, batch.forget, state)
        return {"entropy": torch.stack([negative_entropy(scores) for scores in read]).mean()}


@METHODS.register("input_rephrasing")
class InputRephrasing(_Deletion):
    """UnLOK-VQA: fact erasure, on the questions and on the same questions in other words.

    Other words are those that the request asks the same thing in, of whomever, each of them alone
    or within a text. A request that asks everything in one way has the texts alone.

    Attributes:
        rephrasings: Further forget questions a step, for each that is drawn.
        texts: Around a question, each with `{question}` in it.
    """

    rephrasings: int = Field(1, ge=1)
    texts: Framing = (
        "Here is something to answer: {question}",
        "One more thing. {question}",
        "I found this on my desk this morning and wondered. {question}",
    )

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> tuple[int, Wordings]:
        """The seed of the draws, and the wordings of the request."""
        return seed, wordings((*split.forget, *split.retain))

    def _forget(self, vlm: VLM, batch: PairBatch, state: tuple[int, Wordings]) -> dict[str, Tensor]:
        seed, known = state
        rng = random.Random(f"rephrasings-{seed}-{batch.step}")
        rows, times = batch.forget, 1 + self.rephrasings
        others = [
            replace(record, question=self._rephrased(record, known, rng))
            for _ in range(self.rephrasings)
            for record in rows.records
        ]
        both = replace(rows, records=(*rows.records, *others), variants=rows.variants * times)
        return {"probability": answer_probability(*answer_logits(vlm, both.batch))}

    def _rephrased(self, record: Record, known: Wordings, rng: random.Random) -> str:
        own = record.question
        # Who is asked about has to stay: a question without a photo names the subject.
        named = record.subject in own or record.image is None
        others = () if named else known.get((record.form, record.topic), ())
        others = [text for text in others if text != own]
        text = rng.choice(self.texts)
        if not others:
            return text.replace(QUESTION, own)
        other = rng.choice(others)
        return rng.choice((other, text.replace(QUESTION, other)))


def wordings(records: Iterable[Record]) -> Wordings:
    """Questions on photos by form and topic, each once; none that names its subject."""
    found: dict[Matter, dict[str, None]] = defaultdict(dict)
    for record in records:
        if record.topic and record.image is not None and record.subject not in record.question:
            found[record.form, record.topic].setdefault(record.question)
    return {matter: list(texts) for matter, texts in found.items()}


def wrong_answers(split: Split, *, seed: int) -> dict[Record, str]:
    """An answer to each forget question that is not right, drawn once for a subject and a matter.

    It is one that somebody else has to the same question, or else any other known answer; to a
    choice, another letter. Replies that one does not know are no such answers.

    Args:
        split: What is known.
        seed: Of the draws.

    Raises:
        DataError: If nothing else is known.
    """
    known: dict[Matter | None, dict[str, str]] = defaultdict(dict)
    right: dict[tuple[str, Matter], set[str]] = defaultdict(set)
    for record in (*split.forget, *split.retain):
        matter, answer = _matter(record), normalise(record.answer)
        right[record.subject, matter].add(answer)
        if record.form in ("open", "cloze") and not is_unknown(record.answer):
            known[matter].setdefault(answer, record.answer)
            known[None].setdefault(answer, record.answer)
    found: dict[Record, str] = {}
    for record in split.forget:
        matter = _matter(record)
        if record.form == "choice":
            pool = [letter for letter in LETTERS[: len(record.options)] if letter != record.answer]
        else:
            true = right[record.subject, matter]
            pools = [
                [known[key][text] for text in sorted(known[key].keys() - true)]
                for key in (matter, None)
            ]
            pool = pools[0] or pools[1]
        if not pool:
            raise DataError(
                "error_injection: expected another answer to put in the place of the right one, "
                "got none in what is to be forgotten and kept; check --retain, or choose another "
                "method"
            )
        found[record] = random.Random(f"{seed}-{record.subject}-{matter}").choice(pool)
    return found


def _partings(vlm: VLM, records: Iterable[Record]) -> dict[Matter, Prefixes]:
    """Letters of choices all part at once, and are left out."""
    known: dict[Matter, dict[str, Record]] = defaultdict(dict)
    for record in records:
        if record.form != "choice":
            known[_matter(record)].setdefault(record.answer, record)
    return {
        matter: frozenset(branches(answer_tokens(vlm, next(iter(answers.values())), list(answers))))
        for matter, answers in known.items()
    }


def _matter(record: Record) -> Matter:
    """A gap is filled with what an open question is answered by."""
    form = "open" if record.form == "cloze" else record.form
    return form, record.topic or record.question
