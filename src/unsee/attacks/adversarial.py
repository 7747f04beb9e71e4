"""Photos moved by little towards what the attacker knows, so that the rest comes out: PGD.

    x' = argmin over |x' - x| <= eps of mean NLL(known answers | x', their questions)

with projected gradient descent (`unsee.perturb`) through the model under attack itself; base, gold
and the control are attacked in the same way, each through its own weights. Whoever is fitted to an
answer brings it about on any model, one that never knew as well (Open-MMUnlearning, whose universal
attack "recovers" more than half of what a model was never taught, https://arxiv.org/abs/2610.10358).
So no answer is asked for that photos were fitted to: one of a person's facts is looked for on
photos that are fitted to others of that person (`pgd.py`), one person's on photos moved as other
people's want it (`universal.py`). What gold gives away then is what a guess is worth.
"""

import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unsee.answering import answer_logits
from unsee.attacks.pictures import irreversible, photo_of
from unsee.attacks.protocol import Asked, Given, Group, Tell, Try
from unsee.data.collate import IGNORED_LABEL, Batch, encode
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.losses import cross_entropy
from unsee.metrics.answers import is_unknown
from unsee.models.load import VLM
from unsee.models.passes import asking, scoring
from unsee.perturb import PixelSpace, pictures, pixel_space
from unsee.settings import Settings

ROWS_A_PASS = 32

# What a photo is fitted for: its changed copy serves questions of the same photo and key alone.
Key = tuple[Photo, Hashable]


class Adversarial(Settings):
    """Photos changed within a budget, a try each.

    Attributes:
        budgets: Largest change of a pixel, as a share of the way from black to white; a try each.
    """

    group: ClassVar[Group] = "images"

    budgets: tuple[float, ...] = Field((8 / 255,), min_length=1)

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """A try a budget."""
        if why := irreversible(vlm, given.split) or self.unfit(vlm, given):
            return why
        return [
            Try(f"{255 * budget:.3g} of 255", partial(self._ask, vlm, given, budget))
            for budget in self.budgets
        ]

    @abstractmethod
    def unfit(self, vlm: VLM, given: Given) -> str:
        """Why the photos given leave nothing to fit or to ask; "" if they do not."""

    @abstractmethod
    def keys(self, records: Sequence[Record], given: Given) -> list[Key | None]:
        """What the photo of each record is fitted for; None where it cannot be."""

    @abstractmethod
    def changed(
        self, vlm: VLM, given: Given, budget: float, wanted: Mapping[Key, Record]
    ) -> Iterator[tuple[Key, Photo]]:
        """Changed photos by what they are fitted for, of which a record each is shown."""

    def _ask(
        self, vlm: VLM, given: Given, budget: float, records: Sequence[Record], tell: Tell
    ) -> Asked:
        keys = self.keys(records, given)
        wanted = {k: r for k, r in zip(keys, records, strict=True) if k is not None}
        photos = dict(self.changed(vlm, given, budget, wanted))
        return [
            replace(record, image=photos[key]) if key in photos else None
            for key, record in zip(keys, records, strict=True)
        ]


@dataclass(frozen=True)
class Shown:
    """Questions on photos with their answers, and the photos' pixel values.

    Attributes:
        batch: A photo a row.
        values: Its pixel values.
        forms: Of the questions.
        space: Of the pixel values.
        sizes: Of each row's photo, as far as families tell photos apart by size.
    """

    batch: Batch
    values: Tensor
    forms: tuple[str, ...]
    space: PixelSpace
    sizes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, vlm: VLM, records: Sequence[Record]) -> "Shown":
        """The photos of records, which all have one."""
        batch = encode(vlm, records, answers=True, side="right").to(vlm.device)
        own = batch.pixel_values
        if own is None:
            raise ValueError("expected pixel values of records with photos, got none")
        grid = batch.extra.get("image_grid_thw")
        sizes = [(1,)] * len(own) if grid is None else [tuple(row) for row in grid.tolist()]
        space = pixel_space(vlm.processor.image_processor, own)
        return cls(batch, own, tuple(record.form for record in records), space, tuple(sizes))

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Pixel values of the photos of some rows, behind one another."""
        parts = self.values.float().split(self._lengths)
        return torch.cat([parts[row] for row in rows])

    def repeated(self, pixels: Tensor, rows: Sequence[int], times: Sequence[int]) -> Tensor:
        """Photos of the sizes of some rows, each so many times."""
        parts = pixels.split([self._lengths[row] for row in rows])
        return torch.cat([p for p, count in zip(parts, times, strict=True) for _ in range(count)])

    def loss(self, vlm: VLM, pixels: Tensor) -> Tensor:
        """Mean negative log-probability of the answers on other pixel values."""
        batch = replace(self.batch, pixel_values=pixels.to(vlm.dtype))
        with scoring(batch.labels == IGNORED_LABEL), asking(self.forms):
            return cross_entropy(*answer_logits(vlm, batch))

    def photos(self, vlm: VLM, pixels: Tensor, rows: Sequence[int]) -> list[Photo]:
        """Photos of which the processor makes such pixel values, of the sizes of some rows."""
        grid = self.batch.extra.get("image_grid_thw")
        of = vlm.processor.image_processor
        drawn = pictures(of, pixels, self.space, None if grid is None else grid[list(rows)])
        return [photo_of(picture) for picture in drawn]

    @property
    def _lengths(self) -> list[int]:
        """Rows of the pixel values that each photo takes."""
        return [int(torch.tensor(size).prod()) for size in self.sizes]


def known_pairs(records: Sequence[Record]) -> list[Record]:
    """Open questions on photos of which an answer is known."""
    return [
        record
        for record in records
        if record.form == "open" and record.image is not None and not is_unknown(record.answer)
    ]


def known_facts(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    """A question on each topic of each person, as it came first."""
    found: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in known_pairs(records):
        if record.topic:
            found[record.subject].setdefault(record.topic, record)
    return dict(found)


def halves_of(names: Mapping[str, Record], seed: int) -> dict[str, int]:
    """0 or 1 for each name, as many of each as there can be."""
    drawn = random.Random(f"halves-{seed}").sample(sorted(names), len(names))
    return {name: number % 2 for number, name in enumerate(drawn)}


def within(pixels: Tensor, space: PixelSpace) -> Tensor:
    """Pixel values no darker than black and no lighter than white."""
    return torch.minimum(torch.maximum(pixels, space.black), space.white)
