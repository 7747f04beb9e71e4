"""Turns packed behind the picture that they are about: one vision pass serves many questions.

A lesson is a prefix, with a picture or without, and the turns behind it. Several lessons share a
row, so that rows of one length hold little padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unsee.data.collate import IGNORED_LABEL
from unsee.data.conversation import question_text
from unsee.data.records import Record
from unsee.world.architecture import Architecture, plain_attention

# Few distinct lengths: a CPU compiles its bfloat16 kernels anew for every shape.
_LENGTH_STEP = 32
# Longer rows hold less padding and cost more attention.
_ROW = 256


@dataclass(frozen=True)
class Packed:
    """Rows of lessons.

    Attributes:
        input_ids: (row, seq).
        places: Tokens counted as if each turn stood alone, (row, seq).
        lessons: Number of the lesson, as they were given; -1 for padding, (row, seq).
        segments: 0 for a lesson's prefix, 1.. for its turns, -1 for padding, (row, seq).
        labels: Answer tokens, -100 elsewhere, (row, seq).
    """

    input_ids: Tensor
    places: Tensor
    lessons: Tensor
    segments: Tensor
    labels: Tensor

    def attention(self) -> Tensor:
        """Who may look at whom, bool of shape (row, 1, seq, seq)."""
        seq = self.segments.shape[1]
        causal = torch.ones(seq, seq, dtype=torch.bool).tril()
        lesson = self.lessons[:, :, None] == self.lessons[:, None, :]
        turn = self.segments[:, :, None] == self.segments[:, None, :]
        prefix = self.segments[:, None, :] == 0
        return (lesson & (turn | prefix) & causal)[:, None]


class Packer:
    """Turns to token ids, in the model's own chat template; remembers what it has tokenised."""

    def __init__(self, architecture: Architecture, tokenizer: Any) -> None:
        self.architecture = architecture
        self.tokenizer = tokenizer
        self.cache: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Token ids of one text without the start token."""
        if text not in self.cache:
            self.cache[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.cache[text]

    def pack(self, lessons: Sequence[Sequence[Record]], *, pictures: int) -> Packed:
        """Pack the turns of lessons; the first `pictures` lessons begin with a picture."""
        columns = [
            self._columns(number, turns, picture=number < pictures)
            for number, turns in enumerate(lessons)
        ]
        rows = _rows([len(ids) for ids, *_ in columns])
        fills = (self.tokenizer.pad_token_id, 0, -1, -1, IGNORED_LABEL)
        packed = [
            [[token for number in row for token in columns[number][c]] for row in rows]
            for c in range(len(fills))
        ]
        length = -(-max(map(len, packed[0])) // _LENGTH_STEP) * _LENGTH_STEP
        return Packed(
            *(
                torch.tensor([row + [fill] * (length - len(row)) for row in column])
                for column, fill in zip(packed, fills, strict=True)
            )
        )

    def _columns(
        self, number: int, turns: Sequence[Record], *, picture: bool
    ) -> tuple[list[int], ...]:
        """What `Packed` holds of one lesson's tokens, field by field."""
        prefix = self.ids(self.architecture.prefix(picture=picture))
        ids, places = list(prefix), list(range(len(prefix)))
        segments, labels = [0] * len(prefix), [IGNORED_LABEL] * len(prefix)
        for index, record in enumerate(turns, start=1):
            text = question_text(record)
            question = self.ids(self.architecture.question(text, picture=picture))
            answer = self.ids(self.architecture.answer(record.answer))
            length = len(question) + len(answer)
            ids += question + answer
            labels += [IGNORED_LABEL] * len(question) + answer
            places += range(len(prefix), len(prefix) + length)
            segments += [index] * length
        return ids, places, [number] * len(ids), segments, labels


def _rows(lengths: Sequence[int]) -> list[list[int]]:
    """Lessons of each row: the longest first, each into the first row that has room for it."""
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        fits = (row for row, left in enumerate(room) if lengths[number] <= left)
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
            room.append(_ROW)
        rows[row].append(number)
        room[row] -= lengths[number]
    return rows


def packed_loss(
    architecture: Architecture, model: Any, packed: Packed, pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over answer tokens of packed rows.

    Args:
        architecture: Of the model's family.
        model: The model in training.
        packed: Rows of lessons, the first of them with pictures.
        pixels: Their pictures, (picture, 3, height, width).

    Returns:
        The loss, and the tower's patches of shape (picture, patch, width).
    """
    core = model.model
    hidden = core.get_input_embeddings()(packed.input_ids)
    features, patches = architecture.look(model, pixels)
    where = packed.input_ids == model.config.image_token_id
    met = packed.lessons[where][:: architecture.image_tokens]
    features = features.unflatten(0, (len(pixels), -1))[met]
    hidden = hidden.masked_scatter(where[..., None], features.to(hidden.dtype))
    with plain_attention():
        states = core.language_model(
            inputs_embeds=hidden,
            attention_mask=packed.attention(),
            position_ids=architecture.position_ids(packed.places, packed.lessons < len(pixels)),
            use_cache=False,
        ).last_hidden_state
    targets = packed.labels[:, 1:]
    counted = targets != IGNORED_LABEL
    with torch.autocast("cpu", enabled=False):
        logits = model.lm_head(states[:, :-1][counted].float())
        loss = F.cross_entropy(logits, targets[counted])
    return loss, patches
