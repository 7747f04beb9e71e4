"""One change of all photos, fitted on some people and shown to others."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

import torch
from pydantic import Field
from torch import Tensor

from unsee.attacks import ATTACKS
from unsee.attacks.adversarial import (
    ROWS_A_PASS,
    Adversarial,
    Key,
    Shown,
    halves_of,
    known_pairs,
    within,
)
from unsee.attacks.protocol import Given
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.models.load import VLM
from unsee.perturb import PixelSpace, pgd


@ATTACKS.register("universal")
class Universal(Adversarial):
    """One change for all photos, fitted on the photos of half of the people; shown to the others.

    After SUA, https://arxiv.org/abs/2506.17265, on the answers' likelihood alone: **our reading**
    leaves out its denoiser and its alignment of features, and asks about people that the change
    was not fitted on. Both halves are fitted, so that everybody is asked about.

    Attributes:
        step: Change of a pixel an iteration, as a share of the way from black to white.
        iterations: Of projected gradient descent, a batch of pairs each.
        batch: Pairs of photo and question a batch, drawn.
        batches: Batches, which take turns.
    """

    budgets: tuple[float, ...] = Field((12 / 255,), min_length=1)
    step: float = Field(1 / 255, gt=0, le=1)
    iterations: int = Field(40, ge=1)
    batch: int = Field(16, ge=1)
    batches: int = Field(8, ge=1)

    def unfit(self, vlm: VLM, given: Given) -> str:
        """There is one person alone, or photos come in several sizes."""
        pairs = known_pairs(given.split.forget)
        if len({record.subject for record in pairs}) < 2:
            return "there are no photos of two people, one to fit on and one to ask about"
        if len(set(Shown.of(vlm, list({r.image: r for r in pairs}.values())).sizes)) > 1:
            return "photos come in several sizes, and no change fits all"
        return ""

    def keys(self, records: Sequence[Record], given: Given) -> list[Key | None]:
        """The half of the people that the person is of."""
        halves = self._halves(given)
        return [
            (record.image, halves[record.subject])
            if record.image is not None and not record.before and record.subject in halves
            else None
            for record in records
        ]

    def changed(
        self, vlm: VLM, given: Given, budget: float, wanted: Mapping[Key, Record]
    ) -> Iterator[tuple[Key, Photo]]:
        """A change is fitted for each half, on the other one."""
        halves = self._halves(given)
        for half in sorted(set(halves.values())):
            keys = [key for key in wanted if key[1] == half]
            if not keys:
                continue
            pairs = [r for r in known_pairs(given.split.forget) if halves[r.subject] != half]
            change = self._fitted(vlm, pairs, budget, f"universal-{given.seed}-{half}")
            for start in range(0, len(keys), ROWS_A_PASS):
                part = keys[start : start + ROWS_A_PASS]
                shown = Shown.of(vlm, [wanted[key] for key in part])
                alike = [
                    row for row in range(len(part)) if shown.pixels([row]).shape == change.shape
                ]
                if alike:
                    own = shown.pixels(alike).reshape(len(alike), *change.shape)
                    moved = within(own + change, shown.space).reshape(-1, *own.shape[2:])
                    photos = shown.photos(vlm, moved, alike)
                    yield from zip([part[row] for row in alike], photos, strict=True)

    def rows(self, questions: int) -> int:
        """Rows of fitting on one model."""
        return 2 * len(self.budgets) * self.iterations * self.batch

    def _halves(self, given: Given) -> dict[str, int]:
        people = {record.subject: record for record in known_pairs(given.split.forget)}
        return halves_of(people, given.seed)

    def _fitted(self, vlm: VLM, pairs: Sequence[Record], budget: float, seed: str) -> Tensor:
        """The change, of the shape of one photo's pixel values."""
        rng = random.Random(seed)
        size = min(self.batch, len(pairs))
        batches = [Shown.of(vlm, rng.sample(pairs, size)) for _ in range(self.batches)]
        turns = cycle(batches)
        space, nothing = batches[0].space, torch.zeros_like(batches[0].pixels([0]))

        def loss(change: Tensor) -> Tensor:
            shown = next(turns)
            own = shown.pixels(range(size)).reshape(size, *change.shape)
            return shown.loss(vlm, within(own + change, space).reshape(-1, *own.shape[2:]))

        return pgd(
            nothing,
            loss,
            # Of changes, which go both ways from nothing.
            PixelSpace(-space.scale, space.scale, space.frames),
            budget=budget / 2,
            step=self.step / 2,
            iterations=self.iterations,
            random_start=False,
        )
