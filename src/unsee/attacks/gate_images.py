"""Photos on which an eraser's gate stays silent: PGD on the pixels against what it decides by.

An attack that knows the defence and goes through it, as Carlini & Wagner 2017,
https://arxiv.org/abs/1705.07263, ask of anybody who claims that something detects; PGD as in
`unsee.perturb`. Whoever has the eraser can do so; no answer is read.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unsee.attacks import ATTACKS
from unsee.attacks.pictures import irreversible, photo_of
from unsee.attacks.protocol import Asked, Given, Group, Tell, Try
from unsee.data.collate import Batch, encode
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.models.hooks import is_edited
from unsee.models.load import VLM
from unsee.models.passes import margins_read
from unsee.perturb import pgd, pictures, pixel_space
from unsee.settings import Settings

_BATCH = 32


@ATTACKS.register("gate_images")
class GateImages(Settings):
    """Photos changed by little, so that the gate of an eraser does not fire on the question.

    Each question gets a photo of its own, which is fitted on the erased model; base and gold are
    shown the same. Where the gate does not fire, a photo stays as it is.

    Attributes:
        budgets: Largest change of a pixel, as a share of the way from black to white; a try each.
        step: Change of a pixel an iteration, as a share of the budget.
        iterations: Of projected gradient descent.
        below: How far the gate is driven below the point from which it acts, in its own unit:
            nats for a calibrated one.
    """

    group: ClassVar[Group] = "weights"

    budgets: tuple[float, ...] = Field((4 / 255, 8 / 255, 16 / 255), min_length=1)
    step: float = Field(0.25, gt=0, le=1)
    iterations: int = Field(10, ge=1)
    below: float = Field(0.25, ge=0)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """A try a budget."""
        if not given.has_eraser:
            return "there is no eraser whose gate could be kept silent"
        if why := irreversible(vlm, given.split):
            return why
        return [
            Try(f"{255 * budget:.3g} of 255", partial(self._ask, vlm, given, budget))
            for budget in self.budgets
        ]

    def rows(self, questions: int) -> int:
        """Rows of fitting, which is done on the erased model alone."""
        return len(self.budgets) * self.iterations * questions

    def _ask(
        self, vlm: VLM, given: Given, budget: float, records: Sequence[Record], tell: Tell
    ) -> Asked:
        if is_edited(vlm.model):
            shown = [r for r in records if r.image is not None and not r.before]
            for start in range(0, len(shown), _BATCH):
                part = shown[start : start + _BATCH]
                photos = self._silencing(vlm, part, budget)
                found = zip(part, photos, strict=True)
                given.found.update({(self, budget, record): photo for record, photo in found})
        photos = [given.found.get((self, budget, record)) for record in records]
        return [
            replace(record, image=photo) if photo is not None else None
            for record, photo in zip(records, photos, strict=True)
        ]

    def _silencing(
        self, vlm: VLM, records: Sequence[Record], budget: float
    ) -> Sequence[Photo | None]:
        """A photo for each record, its own where no gate fires; None where nothing decides."""
        with torch.no_grad():
            before = gate_margins(vlm, _read(vlm, records))
        if not len(before):
            return [None] * len(records)
        loud = [row for row, high in enumerate(before.amax(0) > -self.below) if high]
        photos = [record.image for record in records]
        if not loud:
            return photos
        batch = _read(vlm, [records[row] for row in loud])
        of, own = vlm.processor.image_processor, batch.pixel_values
        if own is None:
            raise ValueError("expected pixel values of records with photos, got none")
        space = pixel_space(of, own)
        pixels = pgd(
            own,
            lambda moved: gate_margins(vlm, batch, moved).clamp_min(-self.below).sum(),
            space,
            budget=budget,
            step=self.step * budget,
            iterations=self.iterations,
            random_start=False,
        )
        drawn = pictures(of, pixels, space, batch.extra.get("image_grid_thw"))
        for row, picture in zip(loud, drawn, strict=True):
            photos[row] = photo_of(picture)
        return photos


def gate_margins(
    vlm: VLM, batch: Batch, pixels: Tensor | None = None
) -> Float[Tensor, "decision batch"]:
    """By how much the gates of the erasers on a model decide to act on what comes next.

    Args:
        vlm: A model under erasers.
        batch: Prompts.
        pixels: Pixel values to show instead of the batch's own; gradients flow back to them.

    Returns:
        Above 0 where a gate acts, -inf where it does not look; a row a decision, none without one.
    """
    inputs = batch.inputs()
    if pixels is not None:
        inputs["pixel_values"] = pixels.to(vlm.dtype)
    with margins_read() as told:
        vlm.model(**inputs, use_cache=False, logits_to_keep=1)
    return torch.stack(told) if told else torch.empty(0, len(batch.input_ids))


def _read(vlm: VLM, records: Sequence[Record]) -> Batch:
    return encode(vlm, records, answers=False, side="left").to(vlm.device)
