"""Records to tensors. The one place where labels are masked."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from unsee.data.conversation import answer_text, prompt
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.errors import DataError
from unsee.models.load import VLM

IGNORED_LABEL = -100

Side = Literal["left", "right"]
Augment = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Batch:
    """Tensors of some records, one row a record.

    Attributes:
        input_ids: Prompt, and answer where asked for, shape (batch, seq).
        attention_mask: 1 on tokens, 0 on padding, shape (batch, seq).
        pixel_values: Image tensor as the processor gives it, images in row order; None
            where no record has a photo. LLaVA: (image, channel, height, width).
        labels: `input_ids` on answer tokens, -100 elsewhere, shape (batch, seq).
        extra: What else the processor gives (`image_grid_thw`, `mm_token_type_ids`, ...).
        image_tokens: Image tokens of each row that has some, in row order.
        cache: Keys and values of what stands before `input_ids`, which `attention_mask` covers as
            well; None for nothing.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor | None
    labels: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    image_tokens: tuple[int, ...] = ()
    cache: Any = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            pixel_values=None if self.pixel_values is None else self.pixel_values.to(device),
            labels=self.labels.to(device),
            extra={name: tensor.to(device) for name, tensor in self.extra.items()},
            image_tokens=self.image_tokens,
            cache=self.cache,
        )

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments for the model: everything but the labels."""
        inputs: dict[str, Any] = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
        }
        if self.cache is not None:
            inputs["past_key_values"] = self.cache
        if self.pixel_values is not None:
            inputs["pixel_values"] = self.pixel_values
        return inputs | dict(self.extra)


def reply_mark(vlm: VLM) -> tuple[int, ...]:
    """Token ids that every prompt ends in, behind which a reply begins.

    Returns:
        What prompts that ask different things have in common at their ends; none for a family
        whose prompts hold one turn.
    """
    if not vlm.layout.converses:
        return ()
    asked = [Record("", None, text, "") for text in ("Where is 7", "Look at this.")]
    one, other = (
        encode(vlm, [record], answers=False, side="left").input_ids[0].tolist() for record in asked
    )
    shared = 0
    while shared < min(len(one), len(other)) and one[-1 - shared] == other[-1 - shared]:
        shared += 1
    return tuple(one[len(one) - shared :])


def encode(
    vlm: VLM,
    records: Sequence[Record],
    *,
    answers: bool,
    side: Side,
    augment: Augment | None = None,
    images: Sequence[Image.Image | None] | None = None,
) -> Batch:
    """Tokens, images and labels of some records, padded on one side.

    Records with and without a photo may be mixed. A prompt is never truncated, so
    image tokens always match the images.

    Args:
        vlm: Model whose processor and chat template are used.
        records: At least one record.
        answers: Whether answers follow the prompts; False for generation.
        side: Where padding goes: "left" for generation, "right" for training and scoring.
        augment: Applied to every row's photo on its own.
        images: One entry a record, used instead of its only photo; None for text-only records.

    Returns:
        The batch on the CPU; pixel values in the processor's dtype.

    Raises:
        DataError: If there are no records, a photo cannot be opened, or `images` does not
            match the records.
        LayoutError: If the chat template cannot render an answer.
    """
    if not records:
        raise DataError("encode: expected at least one record, got none; leave empty sets out")
    prompts = [prompt(vlm.processor, record) for record in records]
    pictures = _pictures(records, images)
    if augment is not None:
        pictures = [augment(picture) for picture in pictures]
    encoded = _process(vlm, records, prompts, pictures)

    kept = encoded.pop("attention_mask").bool()
    prompt_ids = encoded.pop("input_ids")
    rows = [ids[mask] for ids, mask in zip(prompt_ids, kept, strict=True)]
    replies = answer_ids(vlm.processor, records, prompts) if answers else [[] for _ in records]
    pad = vlm.processor.tokenizer.pad_token_id
    tokens = [
        torch.cat([row, row.new_tensor(reply)]) for row, reply in zip(rows, replies, strict=True)
    ]
    labels = [
        torch.cat([torch.full_like(row, IGNORED_LABEL), row.new_tensor(reply)])
        for row, reply in zip(rows, replies, strict=True)
    ]
    extra = {}
    for name, tensor in encoded.items():
        if tensor.shape[:2] == kept.shape and name not in vlm.layout.visual_inputs:
            values = [
                _with_reply(name, value[mask], len(reply), vlm.layout.answer_token_type)
                for value, mask, reply in zip(tensor, kept, replies, strict=True)
            ]
            tensor = padded(values, 0, side)
        extra[name] = tensor
    image_token = getattr(vlm.model.config, vlm.layout.image_token_id)
    counts = [int((row == image_token).sum()) for row in rows]
    return Batch(
        input_ids=padded(tokens, pad, side),
        attention_mask=padded([torch.ones_like(row) for row in tokens], 0, side),
        pixel_values=extra.pop("pixel_values", None),
        labels=padded(labels, IGNORED_LABEL, side),
        extra=extra,
        image_tokens=tuple(count for count in counts if count),
    )


def _with_reply(name: str, values: Tensor, length: int, answer_type: int) -> Tensor:
    """What is said of each token of a prompt, and of `length` answer tokens behind it.

    An answer is text like the end of its prompt, and may look at the photo if that may.
    """
    last = values[-1:]
    if name == "token_type_ids":
        last = torch.full_like(last, answer_type)
    return torch.cat([values, last.expand(length, *last.shape[1:])])


def _pictures(
    records: Sequence[Record], images: Sequence[Image.Image | None] | None
) -> list[Image.Image]:
    """Images of the records that have one, in row order; each distinct photo opened once."""
    if images is None:
        opened: dict[Photo, Image.Image] = {}
        shown = [photo for record in records for photo in record.images]
        for photo in shown:
            if photo not in opened:
                opened[photo] = photo.open()
        return [opened[photo] for photo in shown]
    if len(images) != len(records):
        raise DataError(
            f"images: expected one entry for each of {len(records)} records, got {len(images)}; "
            "give None for text-only records"
        )
    given = []
    for record, image in zip(records, images, strict=True):
        if len(record.images) != (image is not None):
            raise DataError(
                f"images: expected an image exactly where a record has one, got another pattern "
                f"at a record about {record.subject!r}; align images with records"
            )
        if image is not None:
            given.append(image)
    return given


def _process(
    vlm: VLM,
    records: Sequence[Record],
    prompts: Sequence[str],
    pictures: Sequence[Image.Image],
) -> dict[str, Tensor]:
    """What the processor makes of prompts and photos; one row a record."""
    written = vlm.layout.text_prompt
    if written is None or len(pictures) == len(records):
        images = _nested(records, pictures) if vlm.layout.nested_images else list(pictures)
        return _processed(vlm.processor, prompts, images if pictures else None)

    # The processor refuses prompts without a photo: the tokenizer reads them.
    tokenizer = vlm.processor.tokenizer
    shown = [bool(record.images) for record in records]
    photo_rows = [text for text, has_photo in zip(prompts, shown, strict=True) if has_photo]
    encoded = _processed(vlm.processor, photo_rows, list(pictures)) if pictures else {}
    text_ids = tokenizer(
        [
            written.format(bos=tokenizer.bos_token, prompt=text)
            for text, has_photo in zip(prompts, shown, strict=True)
            if not has_photo
        ],
        add_special_tokens=False,
    )["input_ids"]
    with_photo = iter(
        ids[mask.bool()]
        for ids, mask in zip(
            encoded.pop("input_ids", ()), encoded.pop("attention_mask", ()), strict=True
        )
    )
    without = iter([torch.tensor(ids) for ids in text_ids])
    rows = [next(with_photo) if has_photo else next(without) for has_photo in shown]
    # All tokens of a prompt are of type 0.
    encoded["token_type_ids"] = padded([torch.zeros_like(row) for row in rows], 0, "right")
    encoded["attention_mask"] = padded([torch.ones_like(row) for row in rows], 0, "right")
    encoded["input_ids"] = padded(rows, tokenizer.pad_token_id, "right")
    return encoded


def _nested(records: Sequence[Record], pictures: Sequence[Image.Image]) -> list[list[Image.Image]]:
    """The photos of each record; none for text-only records."""
    photos = iter(pictures)
    return [[next(photos) for _ in record.images] for record in records]


def _processed(
    processor: Any, prompts: Sequence[str], images: Sequence[Any] | None
) -> dict[str, Tensor]:
    bos = processor.tokenizer.bos_token
    with warnings.catch_warnings():
        # PaliGemma's processor reads tensors in a way that NumPy 2 warns of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        encoded = dict(
            processor(
                images=images,
                text=list(prompts),
                padding=True,
                # Many templates write the first token themselves; twice would shift the model.
                add_special_tokens=bos is None or not prompts[0].startswith(bos),
                return_token_type_ids=False,
                return_tensors="pt",
            )
        )
    # Its labels, too, are of an answer that it was not given.
    encoded.pop("labels", None)
    return encoded


def answer_ids(
    processor: Any, records: Sequence[Record], prompts: Sequence[str]
) -> list[list[int]]:
    """Token ids of the answers as they stand after the prompt, without touching the prompt's.

    The prompt's last word is tokenised along and cut off again: a SentencePiece tokenizer
    puts a space mark before any text that begins, which generation never writes. Where word
    and answer would merge, the answer is tokenised on its own.
    """
    tokenizer = processor.tokenizer
    texts = [
        answer_text(processor, record, text) for record, text in zip(records, prompts, strict=True)
    ]
    words = [text[text.rstrip().rfind(" ") + 1 :] for text in prompts]
    joined = tokenizer(
        [word + text for word, text in zip(words, texts, strict=True)], add_special_tokens=False
    )["input_ids"]
    heads = tokenizer(words, add_special_tokens=False)["input_ids"]
    alone = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [
        list(whole[len(head) :]) if whole[: len(head)] == head else list(single)
        for whole, head, single in zip(joined, heads, alone, strict=True)
    ]


def padded(rows: Sequence[Tensor], value: int, side: Side) -> Tensor:
    """Rows of any length as one tensor (row, longest), filled up with a value on one side."""
    return torch.nn.utils.rnn.pad_sequence(
        list(rows), batch_first=True, padding_value=value, padding_side=side
    )
