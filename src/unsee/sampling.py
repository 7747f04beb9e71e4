"""What each step of training sees: records drawn by the step's number, encoded."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Protocol, runtime_checkable

from PIL import Image

from unsee.data.augment import variant
from unsee.data.collate import Batch, encode
from unsee.data.conversation import question_text
from unsee.data.images import Photo
from unsee.data.records import Record, Split
from unsee.errors import DataError
from unsee.models.load import VLM

_CACHED_PICTURES = 1024


@runtime_checkable
class Sizes(Protocol):
    """How much a step draws; see `unsee.method.Trained`."""

    forget_batch: int
    visible_batch: int
    retain_batch: int
    general_batch: int
    variants: int


@dataclass(frozen=True)
class Rows:
    """Records of one side of a step, and which variant of which photo each shows.

    Attributes:
        records: One a row; text-only rows have no image.
        variants: Variant of each row's photo.
        encoder: Makes tensors of records and variants.
    """

    records: tuple[Record, ...]
    variants: tuple[int, ...]
    encoder: Callable[[Sequence[Record], Sequence[int]], Batch] = field(repr=False)

    @cached_property
    def batch(self) -> Batch:
        """Tensors, answers included, on the model's device; made when they are first read."""
        return self.encoder(self.records, self.variants)

    @property
    def photos(self) -> list[tuple[Photo, int]]:
        """Photo and variant of each image of the batch, in its order."""
        return [
            (record.image, number)
            for record, number in zip(self.records, self.variants, strict=True)
            if record.image is not None
        ]

    def answered(self, answers: Sequence[str]) -> "Rows":
        """The same questions on the same pictures, with other answers.

        Args:
            answers: One a row, in words: a choice is asked with its options, but need not be made.
        """
        records = [
            replace(record, form="open", options=(), question=question_text(record), answer=answer)
            for record, answer in zip(self.records, answers, strict=True)
        ]
        return replace(self, records=tuple(records))


@dataclass(frozen=True)
class PairBatch:
    """What one step sees.

    Attributes:
        step: Number of the step, from 0.
        forget: Photos and questions to be forgotten.
        keep: What stays: questions on retain people, strangers and general photos, refusals, and
            identity-free questions on the forget photos.
        forget_photos: Photos of the subjects, which no retain supervision may hold in place.
    """

    step: int
    forget: Rows
    keep: Rows
    forget_photos: frozenset[Photo]


class Sampler:
    """Draws the records of each step; step and seed alone decide what is drawn."""

    def __init__(self, vlm: VLM, split: Split, sizes: Sizes, seed: int) -> None:
        self.vlm = vlm
        self.seed = seed
        self.variants = sizes.variants
        self.sizes = {
            "visible": sizes.visible_batch,
            "retain": sizes.retain_batch,
            "general": sizes.general_batch,
        }
        self.forget_batch = sizes.forget_batch
        self.pools = {name: _by_photo(getattr(split, name)) for name in ("forget", *self.sizes)}
        self.forget_photos = frozenset(r.image for r in split.forget if r.image is not None)
        self.picture = lru_cache(maxsize=_CACHED_PICTURES)(variant)

    @property
    def keeps(self) -> bool:
        """Whether a step sees anything that is to be kept."""
        return any(self.pools[name] for name, size in self.sizes.items() if size)

    def draw(self, step: int) -> PairBatch:
        """The batch of one step."""
        rng = random.Random(f"{self.seed}-{step}")
        keep: list[Record] = []
        for name, size in self.sizes.items():
            keep += self._records(name, size, rng)
        return PairBatch(
            step=step,
            forget=self.rows(self._records("forget", self.forget_batch, rng), rng),
            keep=self.rows(keep, rng),
            forget_photos=self.forget_photos,
        )

    def _records(self, name: str, size: int, rng: random.Random) -> list[Record]:
        """Photos first, then one question on each: photos count alike, however much is asked."""
        pool = self.pools[name]
        if not pool:
            return []
        return [rng.choice(pool[rng.randrange(len(pool))]) for _ in range(size)]

    def rows(self, records: Sequence[Record], rng: random.Random) -> Rows:
        """Records with a drawn variant of each photo."""
        return Rows(
            tuple(records), tuple(rng.randrange(self.variants) for _ in records), self.encode
        )

    def encode(self, records: Sequence[Record], variants: Sequence[int]) -> Batch:
        """Tensors of records, answers included, on the model's device.

        Args:
            records: One a row.
            variants: Which variant of its photo each shows.
        """
        pictures: list[Image.Image | None] = [
            None if record.image is None else self.picture(record.image, number)
            for record, number in zip(records, variants, strict=True)
        ]
        batch = encode(self.vlm, records, answers=True, side="right", images=pictures)
        return batch.to(self.vlm.device)


def drawn_records(
    records: Sequence[Record], count: int | None, *, seed: int, side: str, photos: bool
) -> list[Record]:
    """At most `count` of some records, in a drawn order.

    Args:
        records: What there is.
        count: How many, >= 1; None for all.
        seed: Seeds the draw.
        side: What they are, for the message.
        photos: Take only those with a photo.

    Raises:
        DataError: If there is none.
    """
    given = [record for record in records if record.image is not None or not photos]
    if not given:
        raise DataError(
            f"expected {'photos and ' if photos else ''}questions {side}, got none; check "
            "--subject, --retain and --general"
        )
    return random.Random(f"{seed}-{side}").sample(given, min(count or len(given), len(given)))


def _by_photo(records: Sequence[Record]) -> list[list[Record]]:
    """Records grouped by photo; a text-only record is a group of its own."""
    groups: dict[object, list[Record]] = {}
    for number, record in enumerate(records):
        groups.setdefault(number if record.image is None else record.image, []).append(record)
    return list(groups.values())
