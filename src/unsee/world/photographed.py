"""People of real photographs, as a source of pictures.

The last quarter of each person's photos is held out; variants of the others (`data/augment.py`)
stand in for the fresh views that a drawn person has. What is visible in a photograph nobody knows,
so it is neither taught nor scored. A tower learns to see on drawn strangers, as in the built-in
world, and then to tell the photographed people apart.
"""

import hashlib
import io
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from unsee.data.augment import variant
from unsee.data.collate import IGNORED_LABEL
from unsee.data.images import Photo
from unsee.world import questions as ask
from unsee.world.architecture import fitted
from unsee.world.curriculum import STRANGERS, UNKNOWN_NAMES, Cast, Picture
from unsee.world.drawn import VIEWS_PER_PERSON, Drawn, Portrait
from unsee.world.faces import LEVELS
from unsee.world.portraits import SIZE
from unsee.world.profiles import Profile, development_people, unknown_names

# Larger photos are kept at four times what the model sees: room for variants, and no more.
LARGEST_SIDE_PX = 4 * SIZE
BLENDED = 0.5
DRAWN_STRANGERS = 800
SPOKEN_OF = 48
STRANGERS_PARTED = {"train": 1 / 2, "dev": 1 / 6}
NOT_VISIBLE = "what is visible in photographs is not known"

_UNKNOWN_LEVELS = (IGNORED_LABEL,) * len(LEVELS)


def stored_photo(photo: Photo) -> Photo:
    """The photo as a world keeps it: upright RGB without metadata, reduced where it is large."""
    picture = photo.open()
    picture.thumbnail(_bounds(picture), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return Photo(data=buffer.getvalue())


def _bounds(picture: Image.Image) -> tuple[int, int]:
    """Size whose shorter side has at most `LARGEST_SIDE_PX`."""
    share = min(1, LARGEST_SIDE_PX / min(picture.size))
    width, height = picture.size
    return round(width * share), round(height * share)


@dataclass(frozen=True)
class Photograph:
    """A photo, or a variant of it.

    Attributes:
        photo: As the world keeps it.
        view: Number of the variant, 0 for the photo itself.
        profile: Whose; None for a stranger.
    """

    photo: Photo
    view: int = 0
    profile: Profile | None = None

    @property
    def visible(self) -> Mapping[str, str]:
        """Nothing: nobody has said what is visible in it."""
        return {}

    @property
    def levels(self) -> tuple[int, ...]:
        """Who it is; no feature of the face is known."""
        return (*_UNKNOWN_LEVELS, IGNORED_LABEL if self.profile is None else self.profile.number)

    def stored(self) -> Image.Image:
        """The photo in its own size."""
        return variant(self.photo, self.view)

    @cached_property
    def _shown(self) -> Image.Image:
        return fitted(self.stored())

    def shown(self) -> Image.Image:
        """The photo as the image processor cuts it out."""
        return self._shown


@dataclass(frozen=True)
class Blend:
    """Two known people in one picture: nobody. Like a look-alike of each, it is a stranger.

    Attributes:
        first: A photo.
        second: One of somebody else.
        share: Weight of the second, 0..1.
    """

    first: Photograph
    second: Photograph
    share: float
    profile: None = None

    @property
    def visible(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    @property
    def levels(self) -> tuple[int, ...]:
        """Nobody."""
        return (*_UNKNOWN_LEVELS, IGNORED_LABEL)

    def stored(self) -> Image.Image:
        """Both, one over the other."""
        return Image.blend(self.first.shown(), self.second.shown(), self.share)

    shown = stored


@dataclass(frozen=True)
class DrawnStranger:
    """A drawn stranger who looks like the photographs as far as size and colour go.

    Attributes:
        portrait: The drawing.
        side: Pixels a side of the picture.
        grey: Whether colour is taken out.
        levels: Features of the face, and nobody's number; unknown where the tower is to learn
            whom photographs show and no more.
    """

    portrait: Portrait
    side: int
    grey: bool
    levels: tuple[int, ...] = (*_UNKNOWN_LEVELS, IGNORED_LABEL)
    profile: None = None

    @property
    def visible(self) -> Mapping[str, str]:
        """What the drawing still shows: no colour in grey."""
        seen = self.portrait.visible
        return {k: v for k, v in seen.items() if not (self.grey and k.endswith("colour"))}

    def stored(self) -> Image.Image:
        """The drawing, reduced to the photographs' size and colour."""
        picture = self.portrait.stored()
        if self.grey:
            picture = picture.convert("L").convert("RGB")
        return picture.resize((self.side, self.side), Image.Resampling.BOX)

    @cached_property
    def _shown(self) -> Image.Image:
        return fitted(self.stored())

    def shown(self) -> Image.Image:
        """The same as the model sees it."""
        return self._shown


@dataclass(frozen=True)
class Photographed:
    """People of a folder of photographs; `read_photographed` makes one.

    Attributes:
        seed: Seeds roles, profiles, variants and weights.
        profiles: Everybody, by number.
        given: Slug -> photos that training may show.
        held_out: Slug -> the last photos, which it may not.
        others: Photos of strangers, those of each one; empty where drawn ones stand in.
        left_out: What the folder holds and no question asks -> of how many people.
    """

    seed: int
    profiles: Sequence[Profile]
    given: Mapping[str, Sequence[Photo]]
    held_out: Mapping[str, Sequence[Photo]]
    others: Sequence[Sequence[Photo]] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, int]:
        """Levels of the features of drawn strangers, and who it is."""
        return {**LEVELS, "person": len(self.profiles)}

    @cached_property
    def grey(self) -> bool:
        """Whether no photo has any colour."""
        return all(_is_grey(photo.open()) for photo in self._people_photos())

    @cached_property
    def side(self) -> int:
        """Pixels a side of drawn strangers: as many as the smallest photo has, up to 48."""
        return min(SIZE, *(min(photo.open().size) for photo in self._people_photos()))

    def pretext(self, count: int) -> list[DrawnStranger]:
        """Drawn strangers, in the size and colour of the photographs, with their features."""
        return [
            DrawnStranger(p, self.side, self.grey, (*p.levels, IGNORED_LABEL))
            for p in Drawn(self.seed).pretext(count)
        ]

    def cast(self, *, gold: bool, strangers: int = STRANGERS) -> Cast:
        """The people and strangers a model is taught.

        Args:
            gold: Leave out every candidate.
            strangers: How many stranger pictures; half of them are blends of two people whom the
                model knows, the others are photographs where there are any, else drawn.
        """
        people = [p for p in self.profiles if not (gold and p.is_candidate)]
        photos = [self._views(self.given[p.slug], p) for p in people]
        rng = random.Random(f"strangers-{self.seed}-{gold}")
        pool: Sequence[Picture] = (
            self._views([photo for mine in self._others("train") for photo in mine], None)
            if self.others
            else self._drawn(Drawn(self.seed).pretext(min(strangers, DRAWN_STRANGERS)))
        )
        return Cast(
            people=people,
            photos=photos,
            strangers=[
                _blend(photos, rng) if rng.random() < BLENDED else rng.choice(pool)
                for _ in range(strangers)
            ],
            unknown=unknown_names(self.profiles, UNKNOWN_NAMES, self.seed),
        )

    def photos(self, profile: Profile, part: str) -> list[Photograph]:
        """Photos of a person; those held out are dealt to "dev" and "report" in turn."""
        mine = self.given[profile.slug]
        if part != "train":
            first = self._first_part[profile.slug]
            mine = self.held_out[profile.slug][0 if part == first else 1 :: 2]
        return [Photograph(photo, profile=profile) for photo in mine]

    def strangers(self, part: str) -> list[Picture]:
        """One photo of each stranger of a part, or drawn ones."""
        if self.others:
            return [Photograph(mine[0]) for mine in self._others(part)]
        return list(self._drawn(Drawn(self.seed).strangers(part)))

    def sayings(self) -> Iterator[str]:
        """Captions of everybody, and what is visible on drawn strangers."""
        for profile in self.profiles:
            yield " " + ask.caption(profile.name, profile.facts, {})
            yield " " + ask.caption(None, {}, {})
        for picture in self.pretext(SPOKEN_OF):
            yield " " + ask.caption(None, {}, picture.visible)
            yield from (f" {value}" for value in picture.visible.values())

    def about(self) -> dict[str, Any]:
        """How many photos there are of each person, and what is not asked."""
        return {
            "photographs": {
                "stored": {slug: len(photos) for slug, photos in self.given.items()},
                "held_out": {slug: len(photos) for slug, photos in self.held_out.items()},
                "strangers": len(self.others) or "drawn",
                "not_scored": {"forget_visible": NOT_VISIBLE},
                "left_out": dict(self.left_out),
            }
        }

    def marks(self) -> dict[str, Any]:
        """Digest of everybody's role, profile and photos."""
        digest = hashlib.sha256()
        for profile in self.profiles:
            digest.update(repr(profile).encode())
        for photo in (*self._people_photos(), *itertools.chain(*self.others)):
            digest.update(photo.key.encode())
        return {"people": digest.hexdigest()}

    @cached_property
    def _first_part(self) -> dict[str, str]:
        """Slug -> the part that a person's first held-out photo serves.

        Nothing that serves choices is reported. So with one photo held out, people whom only one
        part asks about serve that part, and people to keep, whom both ask about, serve either.
        """
        chosen = {p.slug for p in development_people(self.profiles)}
        kept = itertools.cycle(("report", "dev"))
        return {
            p.slug: next(kept) if p.role == "retain" else "dev" if p.slug in chosen else "report"
            for p in self.profiles
        }

    def _people_photos(self) -> Iterator[Photo]:
        for side in (self.given, self.held_out):
            yield from itertools.chain(*side.values())

    def _others(self, part: str) -> Sequence[Sequence[Photo]]:
        """Strangers of a part; no part shares one."""
        train = int(len(self.others) * STRANGERS_PARTED["train"])
        dev = train + int(len(self.others) * STRANGERS_PARTED["dev"])
        bounds = {"train": (0, train), "dev": (train, dev), "report": (dev, None)}
        return self.others[slice(*bounds[part])]

    def _drawn(self, portraits: Sequence[Portrait]) -> Sequence[Picture]:
        return [DrawnStranger(portrait, self.side, self.grey) for portrait in portraits]

    def _views(self, photos: Sequence[Photo], profile: Profile | None) -> list[Photograph]:
        """Variants in turn of the photos, each photo itself first."""
        rounds = max(1, VIEWS_PER_PERSON // len(photos))
        return [Photograph(photo, view, profile) for view in range(rounds) for photo in photos]


def _blend(photos: Sequence[Sequence[Photograph]], rng: random.Random) -> Blend:
    first, second = rng.sample(range(len(photos)), 2)
    return Blend(rng.choice(photos[first]), rng.choice(photos[second]), rng.uniform(0.35, 0.65))


def _is_grey(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels == pixels[..., :1]).all())
