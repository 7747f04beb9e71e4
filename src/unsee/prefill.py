"""One pass a photo: questions about the same photo share what stands before them.

A prompt is a photo, often of hundreds of tokens, and a short question behind it. Where tokens look
back only, keys and values of the photo are the same whatever is asked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unsee.data.collate import IGNORED_LABEL, Batch, Side, answer_ids, encode, padded
from unsee.data.conversation import asked_length, prompt
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.models.hooks import is_edited
from unsee.models.load import VLM


def in_asking_order(vlm: VLM, records: Sequence[Record]) -> list[int]:
    """Row numbers, those that are cheap together next to one another.

    Text-only rows are last. Where photos are shared, questions on one photo stand together; long
    questions come first, so that little is padded.
    """
    shares = vlm.layout.shares_photos

    def cost(row: int) -> tuple[bool, str, int]:
        record = records[row]
        photo = record.image
        key = photo.key if shares and photo is not None else ""
        return not record.images, key, -asked_length(record)

    return sorted(range(len(records)), key=cost)


def prefilled(vlm: VLM, records: Sequence[Record], *, answers: bool) -> Batch | None:
    """Reads each photo of some records once.

    Args:
        vlm: Model to ask.
        records: At least one.
        answers: Whether answers follow the questions, to be scored; False for generation.

    Returns:
        Questions, padded as `encode` would be told to, and the cache of what stands before them, on
        the model's device. None where whole prompts have to be read: the family does not allow for
        it, a row has no photo or several, photos differ in the number of their tokens or are hardly
        shared, the processor reads another question than its tokenizer does, or the model is
        edited, since an edit sees the whole prompt.
    """
    first = _shared_photos(vlm, records)
    if not first:
        return None
    prompts = [prompt(vlm.processor, record) for record in records]
    tails = _tails(vlm, prompts)
    if tails is None:
        return None
    batch = encode(vlm, [records[row] for row in first.values()], answers=False, side="right")
    kept = batch.attention_mask.bool()
    lengths = {
        _length(ids[mask].tolist(), tails[row])
        for ids, mask, row in zip(batch.input_ids, kept, first.values(), strict=True)
    }
    length = lengths.pop()
    if lengths or length is None:
        return None
    number = {photo: row for row, photo in enumerate(first)}
    rows = torch.tensor([number[record.image] for record in records], device=vlm.device)
    with torch.inference_mode():
        cache = vlm.model(
            **_before(batch.to(vlm.device), length), use_cache=True, logits_to_keep=1
        ).past_key_values
    cache.batch_select_indices(rows)
    # Qwen counts positions behind a photo from fewer than its tokens.
    offsets = None
    for module in vlm.model.modules():
        if isinstance(module_offsets := getattr(module, "rope_deltas", None), Tensor):
            offsets = module.rope_deltas = module_offsets[rows]
    replies = answer_ids(vlm.processor, records, prompts) if answers else [[] for _ in records]
    questions = [
        (torch.tensor(tail + reply), torch.tensor([IGNORED_LABEL] * len(tail) + reply))
        for tail, reply in zip(tails, replies, strict=True)
    ]
    side: Side = "right" if answers else "left"
    ids = padded([ids for ids, _ in questions], vlm.processor.tokenizer.pad_token_id, side)
    mask = padded([torch.ones_like(ids) for ids, _ in questions], 0, side)
    mask = torch.cat([mask.new_ones(len(records), length), mask], 1).to(vlm.device)
    extra = {}
    if answers:
        positions = (mask.cumsum(1) - 1)[:, length:]
        if offsets is not None:
            positions = (positions + offsets).expand(3, -1, -1)
        extra["position_ids"] = positions
    return Batch(
        input_ids=ids.to(vlm.device),
        attention_mask=mask,
        pixel_values=None,
        labels=padded([labels for _, labels in questions], IGNORED_LABEL, side).to(vlm.device),
        extra=extra,
        cache=cache,
    )


def _shared_photos(vlm: VLM, records: Sequence[Record]) -> dict[Photo | None, int]:
    """Photo -> the first row that asks about it; empty where photos are not shared."""
    if not vlm.layout.shares_photos or is_edited(vlm.model):
        return {}
    if any(record.image is None or record.before for record in records):
        return {}
    first: dict[Photo | None, int] = {}
    for row, record in enumerate(records):
        first.setdefault(record.image, row)
    return first if 2 * len(first) <= len(records) else {}


def _tails(vlm: VLM, prompts: Sequence[str]) -> list[list[int]] | None:
    """Tokens behind the photo; None where a prompt's photo is not a single token to begin with."""
    image_token = getattr(vlm.model.config, vlm.layout.image_token_id)
    rows = vlm.processor.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    if any(row.count(image_token) != 1 for row in rows):
        return None
    return [row[row.index(image_token) + 1 :] for row in rows]


def _length(row: list[int], tail: list[int]) -> int | None:
    """Tokens before the tail; None if the processor ends a prompt in another way."""
    length = len(row) - len(tail)
    return length if row[length:] == tail else None


def _before(batch: Batch, length: int) -> dict[str, Tensor]:
    """What the model is given of a batch, up to the end of the photos."""
    shape = batch.input_ids.shape
    return {
        name: tensor[:, :length] if tensor.shape[:2] == shape else tensor
        for name, tensor in batch.inputs().items()
    }
