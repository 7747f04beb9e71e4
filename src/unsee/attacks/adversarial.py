"""Photos moved by little towards what the attacker knows, so that the rest comes out: PGD.

    x' = argmin over |x' - x| <= eps of mean NLL(known answers | x', their questions)

with projected gradient descent (`unsee.perturb`) through the model under attack itself; base, gold
and the control are attacked in the same way, each through its own weights. Whoever is fitted to an
answer brings it about on any model, one that never knew as well (Open-MMUnlearning, whose universal
attack "recovers" more than half of what a model was never taught, https://arxiv.org/abs/2610.10358).
So no answer is asked for that photos were fitted to: one of a person's facts is looked for on
photos that are fitted to others of that person (`pgd`), one person's on photos moved as other
people's want it (`universal`). What gold gives away then is what a guess is worth.
"""

import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unsee.answering import answer_logits
from unsee.attacks import ATTACKS
from unsee.attacks.pictures import irreversible, photo_of
from unsee.attacks.protocol import Asked, Given, Group, Tell, Try
from unsee.data.collate import IGNORED_LABEL, Batch, encode
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.losses import cross_entropy
from unsee.metrics.answers import is_unknown
from unsee.models.load import VLM
from unsee.models.passes import asking, scoring
from unsee.perturb import PixelSpace, pgd, pictures, pixel_space
from unsee.settings import Settings

_ROWS_A_PASS = 32

# What a photo is fitted for: its changed copy serves questions of the same photo and key alone.
Key = tuple[Photo, Hashable]


class _Adversarial(Settings):
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


@ATTACKS.register("pgd")
class Pgd(_Adversarial):
    """Each photo fitted to a few known facts of its person; asked about the others.

    Topics of a person fall into two halves. Photos that questions of one half are asked on are
    fitted to facts of the other half, in the wordings that the method was given.

    Attributes:
        step: Change of a pixel an iteration, as a share of the budget.
        iterations: Of projected gradient descent.
        facts: Known facts that a photo is fitted to, at most.
    """

    step: float = Field(0.25, gt=0, le=1)
    iterations: int = Field(10, ge=1)
    facts: int = Field(2, ge=1)

    def unfit(self, vlm: VLM, given: Given) -> str:
        """Nobody has two facts."""
        known = _facts(given.split.forget).values()
        few = all(len(facts) < 2 for facts in known)
        return "nobody to forget has facts on two topics" if few else ""

    def keys(self, records: Sequence[Record], given: Given) -> list[Key | None]:
        """The person, and the half of the topics that is asked about."""
        halves = {name: _halves(facts, given.seed) for name, facts in self._known(given).items()}
        return [
            (record.image, (record.subject, halves[record.subject][record.topic]))
            if record.image is not None
            and not record.before
            and record.topic in halves.get(record.subject, {})
            else None
            for record in records
        ]

    def changed(
        self, vlm: VLM, given: Given, budget: float, wanted: Mapping[Key, Record]
    ) -> Iterator[tuple[Key, Photo]]:
        """Fitted a batch of photos at a time."""
        known = self._known(given)
        halves = {name: _halves(facts, given.seed) for name, facts in known.items()}
        lessons: dict[Key, list[Record]] = {}
        for key, record in wanted.items():
            own = halves[record.subject]
            facts = known[record.subject].items()
            other = [fact for topic, fact in facts if own[topic] != own[record.topic]]
            lessons[key] = [replace(fact, image=record.image) for fact in other[: self.facts]]
        keys = list(lessons)
        step = max(1, _ROWS_A_PASS // self.facts)
        for start in range(0, len(keys), step):
            part = keys[start : start + step]
            photos = self._fitted(vlm, [lessons[key] for key in part], budget)
            yield from zip(part, photos, strict=True)

    def rows(self, questions: int) -> int:
        """Rows of fitting on one model, where every question has a photo of its own."""
        return len(self.budgets) * self.iterations * self.facts * questions

    def _known(self, given: Given) -> Mapping[str, Mapping[str, Record]]:
        """Facts of those who have two, in an order that is drawn."""
        rng = random.Random(f"pgd-{given.seed}")
        return {
            subject: dict(rng.sample(sorted(facts.items()), len(facts)))
            for subject, facts in _facts(given.split.forget).items()
            if len(facts) > 1
        }

    def _fitted(self, vlm: VLM, lessons: Sequence[Sequence[Record]], budget: float) -> list[Photo]:
        """A photo for the lessons on each photo."""
        shown = _Shown.of(vlm, [record for lesson in lessons for record in lesson])
        times = [len(lesson) for lesson in lessons]
        first = [sum(times[:number]) for number in range(len(times))]
        moved = pgd(
            shown.pixels(first),
            lambda pixels: shown.loss(vlm, shown.repeated(pixels, first, times)),
            shown.space,
            budget=budget,
            step=self.step * budget,
            iterations=self.iterations,
            random_start=False,
        )
        return shown.photos(vlm, moved, first)


@ATTACKS.register("universal")
class Universal(_Adversarial):
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
        pairs = _pairs(given.split.forget)
        if len({record.subject for record in pairs}) < 2:
            return "there are no photos of two people, one to fit on and one to ask about"
        if len(set(_Shown.of(vlm, list({r.image: r for r in pairs}.values())).sizes)) > 1:
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
            pairs = [r for r in _pairs(given.split.forget) if halves[r.subject] != half]
            change = self._fitted(vlm, pairs, budget, f"universal-{given.seed}-{half}")
            for start in range(0, len(keys), _ROWS_A_PASS):
                part = keys[start : start + _ROWS_A_PASS]
                shown = _Shown.of(vlm, [wanted[key] for key in part])
                alike = [
                    row for row in range(len(part)) if shown.pixels([row]).shape == change.shape
                ]
                if alike:
                    own = shown.pixels(alike).reshape(len(alike), *change.shape)
                    moved = _within(own + change, shown.space).reshape(-1, *own.shape[2:])
                    photos = shown.photos(vlm, moved, alike)
                    yield from zip([part[row] for row in alike], photos, strict=True)

    def rows(self, questions: int) -> int:
        """Rows of fitting on one model."""
        return 2 * len(self.budgets) * self.iterations * self.batch

    def _halves(self, given: Given) -> dict[str, int]:
        people = {record.subject: record for record in _pairs(given.split.forget)}
        return _halves(people, given.seed)

    def _fitted(self, vlm: VLM, pairs: Sequence[Record], budget: float, seed: str) -> Tensor:
        """The change, of the shape of one photo's pixel values."""
        rng = random.Random(seed)
        size = min(self.batch, len(pairs))
        batches = [_Shown.of(vlm, rng.sample(pairs, size)) for _ in range(self.batches)]
        turns = cycle(batches)
        space, nothing = batches[0].space, torch.zeros_like(batches[0].pixels([0]))

        def loss(change: Tensor) -> Tensor:
            shown = next(turns)
            own = shown.pixels(range(size)).reshape(size, *change.shape)
            return shown.loss(vlm, _within(own + change, space).reshape(-1, *own.shape[2:]))

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


@dataclass(frozen=True)
class _Shown:
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
    def of(cls, vlm: VLM, records: Sequence[Record]) -> "_Shown":
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


def _pairs(records: Sequence[Record]) -> list[Record]:
    """Open questions on photos of which an answer is known."""
    return [
        record
        for record in records
        if record.form == "open" and record.image is not None and not is_unknown(record.answer)
    ]


def _facts(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    """A question on each topic of each person, as it came first."""
    found: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in _pairs(records):
        if record.topic:
            found[record.subject].setdefault(record.topic, record)
    return dict(found)


def _halves(names: Mapping[str, Record], seed: int) -> dict[str, int]:
    """0 or 1 for each name, as many of each as there can be."""
    drawn = random.Random(f"halves-{seed}").sample(sorted(names), len(names))
    return {name: number % 2 for number, name in enumerate(drawn)}


def _within(pixels: Tensor, space: PixelSpace) -> Tensor:
    return torch.minimum(torch.maximum(pixels, space.black), space.white)
