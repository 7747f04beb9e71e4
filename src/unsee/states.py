"""States of the last prompt token, as language layers are given or return them."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unsee.data.augment import variant
from unsee.data.collate import encode
from unsee.data.conversation import asked_length
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.errors import LayoutError
from unsee.models.hooks import captured, edited
from unsee.models.load import VLM
from unsee.models.passes import Pass

At = Literal["input", "output"]
_CACHED_PICTURES = 512


def last_states(
    vlm: VLM,
    records: Sequence[Record],
    layers: Sequence[int],
    *,
    variants: Sequence[int] | None = None,
    pixels: Tensor | None = None,
    at: At = "input",
    batch_size: int = 64,
) -> Float[Tensor, "row layer width"]:
    """State of each prompt's last token at some language layers.

    Args:
        vlm: The model, which is left as it is.
        records: Prompts; their answers are not read.
        layers: Numbers of language layers, from 0.
        variants: Which variant of its photo each record shows (`unsee.data.augment`); None for the
            photos as they are.
        pixels: Pixel values to show instead of the photos, in the order of the records, which are
            then one batch.
        at: Whether to read what a layer is given or what it returns.
        batch_size: Records a forward pass.

    Returns:
        float32 on the model's device.

    Raises:
        LayoutError: If a layer does not run, as Mllama's cross-attention does not without a photo.
    """
    batches = state_batches(
        vlm, records, layers, variants=variants, pixels=pixels, at=at, batch_size=batch_size
    )
    found = {
        row: state for rows, states in batches for row, state in zip(rows, states, strict=True)
    }
    return torch.stack([found[row] for row in range(len(records))])


def state_batches(
    vlm: VLM,
    records: Sequence[Record],
    layers: Sequence[int],
    *,
    variants: Sequence[int] | None = None,
    pixels: Tensor | None = None,
    at: At = "input",
    batch_size: int = 64,
) -> Iterator[tuple[Sequence[int], Float[Tensor, "row layer width"]]]:
    """As `last_states`, a forward pass at a time, so that not all are held at once.

    Yields:
        Which records they are, by place, and their states.
    """
    numbers = list(variants) if variants is not None else [0] * len(records)
    picture = lru_cache(maxsize=_CACHED_PICTURES)(variant)
    # Alike in length, so that little is padded; with and without a photo apart.
    order = sorted(
        range(len(records)),
        key=lambda row: (not records[row].images, -asked_length(records[row])),
    )
    if pixels is not None:
        order, batch_size = list(range(len(records))), len(records)
    shown = sum(bool(record.images) for record in records)
    groups = [group for group in (order[:shown], order[shown:]) if group]
    for chosen in (g[i : i + batch_size] for g in groups for i in range(0, len(g), batch_size)):
        part = [records[row] for row in chosen]
        pictures = [
            picture(record.images[0], numbers[row]) if record.images else None
            for row, record in zip(chosen, part, strict=True)
        ]
        yield chosen, _states(vlm, part, pictures, layers, pixels, at)


def _states(
    vlm: VLM,
    records: Sequence[Record],
    pictures: Sequence[Image.Image | None],
    layers: Sequence[int],
    pixels: Tensor | None,
    at: At,
) -> Tensor:
    paths = vlm.layout.language_layer_paths(vlm.model)
    batch = encode(vlm, records, answers=False, side="left", images=pictures).to(vlm.device)
    inputs = batch.inputs()
    if pixels is not None:
        inputs["pixel_values"] = pixels
    read: dict[str, Tensor] = {}
    chosen = {str(layer): paths[layer] for layer in layers}

    def reader(name: str):
        def keep(hidden: Tensor, now: Pass) -> Tensor:
            read[name] = hidden[torch.arange(len(hidden), device=hidden.device), now.last]
            return hidden

        return keep

    with torch.inference_mode():
        if at == "input":
            edits = {path: [reader(name)] for name, path in chosen.items()}
            with edited(vlm.model, vlm.layout, edits):
                vlm.model(**inputs, use_cache=False)
        else:
            with captured(vlm.model, chosen) as outputs:
                vlm.model(**inputs, use_cache=False)
            read = {name: hidden[:, -1] for name, hidden in outputs.items()}
    silent = [chosen[name] for name in chosen if name not in read]
    if silent:
        raise LayoutError(
            f"{', '.join(silent)}: did not run on prompts "
            f"{'with' if records[0].images else 'without'} a photo; choose other layers"
        )
    return torch.stack([read[name] for name in chosen], 1).float().clone()


def photos_of(records: Sequence[Record]) -> list[Photo]:
    """Each photo once, in the order of the records."""
    return list(dict.fromkeys(record.image for record in records if record.image is not None))
