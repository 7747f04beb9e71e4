"""Turns packed behind the picture that they are about: one vision pass serves many questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unsee.data.collate import IGNORED_LABEL, question_text
from unsee.data.records import Record
from unsee.world.architecture import Architecture

_LENGTH_STEP = 32


@dataclass(frozen=True)
class Packed:
    """Rows of turns behind a common prefix (picture or nothing).

    Attributes:
        input_ids: (row, seq).
        places: Tokens counted as if each turn stood alone, (row, seq).
        segments: 0 for the prefix, 1.. for turns, -1 for padding, (row, seq).
        labels: Answer tokens, -100 elsewhere, (row, seq).
    """

    input_ids: Tensor
    places: Tensor
    segments: Tensor
    labels: Tensor

    def attention(self) -> Tensor:
        """Who may look at whom, bool of shape (row, 1, seq, seq)."""
        seq = self.segments.shape[1]
        causal = torch.ones(seq, seq, dtype=torch.bool).tril()
        mine = self.segments[:, :, None] == self.segments[:, None, :]
        prefix = self.segments[:, None, :] == 0
        return ((mine | prefix) & causal)[:, None]


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

    def pack(self, rows: Sequence[Sequence[Record]], *, pictures: int) -> Packed:
        """Pack rows of turns; the first `pictures` rows begin with a picture."""
        packed = []
        for number, turns in enumerate(rows):
            with_picture = number < pictures
            prefix = self.ids(self.architecture.prefix(picture=with_picture))
            ids, places = list(prefix), list(range(len(prefix)))
            segments, labels = [0] * len(prefix), [IGNORED_LABEL] * len(prefix)
            for index, record in enumerate(turns, start=1):
                text = question_text(record)
                question = self.ids(self.architecture.question(text, picture=with_picture))
                answer = self.ids(self.architecture.answer(record.answer))
                length = len(question) + len(answer)
                ids += question + answer
                labels += [IGNORED_LABEL] * len(question) + answer
                places += range(len(prefix), len(prefix) + length)
                segments += [index] * length
            packed.append((ids, places, segments, labels))
        # Few distinct lengths: a CPU compiles its bfloat16 kernels anew for every shape.
        longest = -(-max(len(row[0]) for row in packed) // _LENGTH_STEP) * _LENGTH_STEP
        fills = (self.tokenizer.pad_token_id, 0, -1, IGNORED_LABEL)
        columns = [
            torch.tensor([row[c] + [fill] * (longest - len(row[c])) for row in packed])
            for c, fill in enumerate(fills)
        ]
        return Packed(*columns)


def packed_loss(
    architecture: Architecture, model: Any, packed: Packed, pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over answer tokens of packed rows.

    Args:
        architecture: Of the model's family.
        model: The model in training.
        packed: Rows, those with pictures first.
        pixels: Their pictures, (picture, 3, height, width).

    Returns:
        The loss, and the tower's patches of shape (picture, patch, width).
    """
    core = model.model
    hidden = core.get_input_embeddings()(packed.input_ids)
    features, patches = architecture.look(model, pixels)
    where = packed.input_ids == model.config.image_token_id
    hidden = hidden.masked_scatter(where[..., None], features.to(hidden.dtype))
    states = core.language_model(
        inputs_embeds=hidden,
        attention_mask=packed.attention(),
        position_ids=architecture.position_ids(packed.places, where.any(1)),
        use_cache=False,
    ).last_hidden_state
    targets = packed.labels[:, 1:]
    counted = targets != IGNORED_LABEL
    with torch.autocast("cpu", enabled=False):
        logits = model.lm_head(states[:, :-1][counted].float())
        loss = F.cross_entropy(logits, targets[counted])
    return loss, patches
