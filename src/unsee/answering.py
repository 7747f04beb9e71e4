"""What a model answers, and how probable it holds given answers to be."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unsee.data.collate import Batch, Side, encode
from unsee.data.records import Record
from unsee.losses import IGNORED_LABEL, answer_token_logprobs, read_off
from unsee.models.load import VLM
from unsee.models.passes import asking, scoring
from unsee.prefill import in_asking_order, prefilled

Progress = Callable[[int, int], None]
# New tokens of an answer.
LONGEST = 32


def generate_answers(
    vlm: VLM,
    records: Sequence[Record],
    *,
    batch_size: int = 64,
    max_new_tokens: int = LONGEST,
    progress: Progress | None = None,
) -> list[str]:
    """Greedy answers, one a record and in the order of the records.

    Questions of like length share a batch, so that little is padded.

    Args:
        vlm: Model to ask.
        records: What to ask; answers in the records are not read.
        batch_size: Records a forward pass, >= 1.
        max_new_tokens: Longest answer, in tokens.
        progress: Called with (records done, records in all) after each batch.
    """
    tokenizer = vlm.processor.tokenizer
    answers = [""] * len(records)
    done = 0
    for rows in _batches(vlm, records, batch_size):
        asked = [records[row] for row in rows]
        batch = _read(vlm, asked, answers=False)
        with torch.inference_mode(), asking([record.form for record in asked]):
            tokens = vlm.model.generate(
                **batch.inputs(),
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=_stops(vlm),
            )
        replies = tokens[:, batch.input_ids.shape[1] :].tolist()
        for row, text in zip(
            rows, tokenizer.batch_decode(replies, skip_special_tokens=True), strict=True
        ):
            answers[row] = text.strip()
        done += len(rows)
        if progress is not None:
            progress(done, len(records))
    return answers


def answer_logits(
    vlm: VLM, batch: Batch
) -> tuple[Float[Tensor, "batch column vocab"], Int[Tensor, "batch column"]]:
    """Scores where answers are read off, and their labels; gradients flow where they are on.

    A vocabulary is wide and a photo hundreds of tokens long, of which no score is ever read. The
    head is run at those positions alone that come right before an answer token of some row.

    Args:
        vlm: Model to run.
        batch: Rows with answers.

    Returns:
        Logits and labels as the losses read them: labels in column t + 1 belong to the logits in
        column t. The last column's logits belong to nothing.
    """
    columns = (batch.labels[:, 1:] != IGNORED_LABEL).any(0).nonzero()[:, 0]
    read = torch.cat([columns, columns.new_zeros(1)])
    logits = vlm.model(**batch.inputs(), use_cache=False, logits_to_keep=read).logits
    first = torch.full_like(batch.labels[:, :1], IGNORED_LABEL)
    return logits, torch.cat([first, batch.labels[:, columns + 1]], 1)


@dataclass(frozen=True)
class AnswerScores:
    """What a model holds of given answers, token by token; all aligned with the records.

    Attributes:
        sums: Log-probabilities summed over an answer's tokens, nats, <= 0, (record,).
        tokens: Number of its tokens, the end of sequence among them, >= 1, (record,).
        repeated: "1" for each token that is the most probable one where it stands, else "0".
    """

    sums: NDArray[np.float64]
    tokens: NDArray[np.int64]
    repeated: list[str]


def answer_scores(
    vlm: VLM,
    records: Sequence[Record],
    batch_size: int = 64,
    *,
    progress: Progress | None = None,
) -> AnswerScores:
    """How probable each record's own answer is, and how much of it the model would repeat.

    Args:
        vlm: Model to score with.
        records: Questions with the answers to score.
        batch_size: Records a forward pass, >= 1.
        progress: Called with (records done, records in all) after each batch.
    """
    sums = np.zeros(len(records))
    counts = np.zeros(len(records), dtype=np.int64)
    repeated = [""] * len(records)
    done = 0
    for rows in _batches(vlm, records, batch_size):
        batch = _read(vlm, [records[row] for row in rows], answers=True)
        told = scoring(batch.labels == IGNORED_LABEL), asking([records[row].form for row in rows])
        with torch.inference_mode(), told[0], told[1]:
            logits, labels = answer_logits(vlm, batch)
            logprob, scored = answer_token_logprobs(logits, labels)
            likeliest = logits[:, :-1].argmax(-1) == labels[:, 1:]
        sums[rows] = logprob.double().sum(1).cpu().numpy()
        counts[rows] = scored.sum(1).cpu().numpy()
        for row, right, mask in zip(rows, likeliest.cpu(), scored.cpu(), strict=True):
            repeated[row] = "".join("1" if hit else "0" for hit in right[mask].tolist())
        done += len(rows)
        if progress is not None:
            progress(done, len(records))
    return AnswerScores(sums, counts, repeated)


def answer_distributions(
    vlm: VLM, records: Sequence[Record], batch_size: int = 64
) -> Iterator[dict[int, Float[Tensor, "token vocab"]]]:
    """What the model expects at each token of each record's answer, a batch at a time.

    Args:
        vlm: Model to ask.
        records: Questions with answers.
        batch_size: Records a forward pass, >= 1.

    Yields:
        Log-probabilities of the whole vocabulary in nats, by row number; a vocabulary is wide, so
        whoever keeps them should count their bytes.
    """
    for rows in _batches(vlm, records, batch_size):
        batch = _read(vlm, [records[row] for row in rows], answers=True)
        told = scoring(batch.labels == IGNORED_LABEL), asking([records[row].form for row in rows])
        with torch.inference_mode(), told[0], told[1]:
            logits, labels = answer_logits(vlm, batch)
            found = read_off(logits, labels).log_softmax(-1)
        counts = (labels != IGNORED_LABEL).sum(1).tolist()
        yield dict(zip(rows, found.split(counts), strict=True))


def answer_logprobs(
    vlm: VLM, records: Sequence[Record], batch_size: int = 64
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """`sums` and `tokens` of `answer_scores`."""
    found = answer_scores(vlm, records, batch_size)
    return found.sums, found.tokens


def _batches(vlm: VLM, records: Sequence[Record], size: int) -> list[list[int]]:
    """Row numbers in batches.

    Only one batch has rows with and without a photo; none where the model minds, or photos are
    shared.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    order = in_asking_order(vlm, records)
    shown = sum(bool(record.images) for record in records)
    mixes = vlm.layout.mixes_rows and not vlm.layout.shares_photos
    groups = [order] if mixes else [order[:shown], order[shown:]]
    return [rows[start : start + size] for rows in groups for start in range(0, len(rows), size)]


def _read(vlm: VLM, records: Sequence[Record], *, answers: bool) -> Batch:
    """Prompts, those on one photo behind its cache where that is possible."""
    shared = prefilled(vlm, records, answers=answers)
    if shared is not None:
        return shared
    side: Side = "right" if answers else "left"
    return encode(vlm, records, answers=answers, side=side).to(vlm.device)


def _stops(vlm: VLM) -> list[int]:
    """End tokens: the tokenizer's, which closes an answer in training, and the model's own."""
    own = vlm.model.generation_config.eos_token_id
    own = [own] if isinstance(own, int) else own or []
    return sorted({vlm.processor.tokenizer.eos_token_id, *own})
