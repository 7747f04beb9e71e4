"""What each language layer would answer: its states read by the model's own last norm and head.

nostalgebraist 2020, "interpreting GPT: the logit lens". For the state h_l that layer l returns,

    D_l = softmax(head(norm(h_l)))

and at the last layer D_l is what the model itself says next.
"""

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unsee.data.collate import IGNORED_LABEL, answer_ids, encode
from unsee.data.conversation import prompt
from unsee.data.records import Record
from unsee.models.hooks import captured
from unsee.models.load import VLM
from unsee.models.passes import asking, scoring


def lens(vlm: VLM, states: Float[Tensor, "row width"]) -> Float[Tensor, "row vocab"]:
    """Log-probabilities of the next token, as the last norm and the head read some states.

    A scale or a cap that a family puts on its logits is left out.

    Args:
        vlm: The model whose states these are.
        states: What some language layer returned.

    Raises:
        LayoutError: If the model has no last norm where its family has it.
    """
    norm = vlm.model.get_submodule(vlm.layout.last_norm_path(vlm.model))
    head = vlm.model.get_submodule(vlm.layout.head)
    return head(norm(states)).float().log_softmax(-1)


def answer_chances(
    vlm: VLM, records: Sequence[Record], answers: Sequence[str], *, batch_size: int = 64
) -> NDArray[np.float64]:
    """Probability that each language layer gives to each of some answers.

    An answer is read off where it parts from the others: behind the tokens that it shares with
    some of them, which are put in the model's mouth, at the token in which they differ. Of answers
    whose first tokens all differ that is the first token behind the prompt; where some begin
    alike, as two people of one first name, a later one counts too:

        P_l(answer) = product over its tokens at which answers part of D_l(token | those before it)

    Tokens that follow from those before them are left out: they would add noise and no choice.

    Args:
        vlm: The model, which is left as it is.
        records: Questions on photos, of one family of prompts; their own answers are not read.
        answers: What can be the answer to any of them; at least two that differ.
        batch_size: Records a forward pass.

    Returns:
        0..1, (record, layer, answer).
    """
    ids = answer_tokens(vlm, records[0], answers)
    layers = len(vlm.layout.language_layer_paths(vlm.model))
    total = np.zeros((len(records), layers, len(answers)))
    for shared, tokens in branches(ids).items():
        at = len(shared)
        example = next(a for a, row in zip(answers, ids, strict=True) if row[:at] == shared)
        posed = [replace(record, answer=example) for record in records]
        read = _read(vlm, posed, at, tokens, batch_size)
        for number, row in enumerate(ids):
            if row[:at] == shared:
                total[:, :, number] += read[:, :, tokens.index(row[at])]
    return np.exp(total)


def answer_tokens(vlm: VLM, record: Record, answers: Sequence[str]) -> list[tuple[int, ...]]:
    """Tokens of some answers to a question that is not a choice, each with its end of sequence."""
    prompts = [prompt(vlm.processor, record)] * len(answers)
    asked = [replace(record, answer=answer) for answer in answers]
    return [tuple(row) for row in answer_ids(vlm.processor, asked, prompts)]


def branches(rows: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Where token sequences part: what they share up to there -> the tokens that follow it.

    Args:
        rows: Each with a last token that stands nowhere else, so that none begins another.
    """
    following: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for row in rows:
        for at, token in enumerate(row):
            following[row[:at]].add(token)
    return {shared: sorted(tokens) for shared, tokens in following.items() if len(tokens) > 1}


def where_answers_part(
    labels: Int[Tensor, "batch seq"], known: Sequence[Container[tuple[int, ...]]]
) -> Bool[Tensor, "batch tokens"]:
    """The answer tokens that tell an answer from others.

    Args:
        labels: Answer tokens at their own positions, -100 elsewhere.
        known: For each row, the tokens behind which answers part; see `branches`.

    Returns:
        seq - 1 columns, column t for the token at position t + 1; an answer that parts from none
        is told by its first token.
    """
    scored = labels[:, 1:] != IGNORED_LABEL
    parted = torch.zeros_like(scored)
    for row, shared in enumerate(known):
        columns = scored[row].nonzero()[:, 0].tolist()
        ids = tuple(labels[row, 1:][scored[row]].tolist())
        chosen = [column for at, column in enumerate(columns) if ids[:at] in shared]
        parted[row, chosen or columns[:1]] = True
    return parted


def _read(
    vlm: VLM, records: Sequence[Record], at: int, tokens: Sequence[int], batch_size: int
) -> NDArray[np.float64]:
    """Log-probability of some tokens in the place of answer token `at`, (record, layer, token)."""
    paths = vlm.layout.language_layer_paths(vlm.model)
    found = []
    for start in range(0, len(records), batch_size):
        part = records[start : start + batch_size]
        batch = encode(vlm, part, answers=True, side="right").to(vlm.device)
        prompts = batch.labels == IGNORED_LABEL
        # What stands before a token says it.
        column = (~prompts).int().argmax(1) + at - 1
        rows = torch.arange(len(part), device=column.device)
        forms = asking([record.form for record in part])
        outputs = captured(vlm.model, {path: path for path in paths})
        with torch.inference_mode(), scoring(prompts), forms, outputs as states:
            vlm.model(**batch.inputs(), use_cache=False, logits_to_keep=1)
            read = [lens(vlm, states[path][rows, column])[:, list(tokens)] for path in paths]
        found.append(torch.stack(read, 1).double().cpu().numpy())
    return np.concatenate(found)
