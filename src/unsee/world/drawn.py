"""The drawn people of the built-in world, as a source of pictures."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from unsee.world import questions as ask
from unsee.world.curriculum import STRANGERS, UNKNOWN_NAMES, Cast
from unsee.world.faces import LEVELS, Face, make_faces, stranger_face, visible_attributes
from unsee.world.portraits import View, draw, make_view
from unsee.world.profiles import Profile, make_profiles, unknown_names

VIEWS_PER_PERSON = 60
UNSEEN_VIEWS = {"dev": 6, "report": 6}
STRANGERS_OF = {"train": 240, "dev": 30, "report": 60}
NEAR_STRANGERS = 0.5


@dataclass(frozen=True)
class Portrait:
    """One drawn picture: whose, and in which view."""

    face: Face
    view: View
    profile: Profile | None = None

    @property
    def visible(self) -> dict[str, str]:
        """What any stranger can see in it."""
        return visible_attributes(self.face)

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of every facial feature."""
        return tuple(getattr(self.face, name) for name in LEVELS)

    def stored(self) -> Image.Image:
        """The drawing."""
        return draw(self.face, self.view)

    @cached_property
    def _shown(self) -> Image.Image:
        return self.stored()

    def shown(self) -> Image.Image:
        """The same; drawn once."""
        return self._shown


@dataclass(frozen=True)
class Drawn:
    """48 drawn people in look-alike pairs, and strangers without end.

    Attributes:
        seed: Seeds people, roles, facts, faces and views.
    """

    seed: int = 0

    @property
    def features(self) -> dict[str, int]:
        """Levels of every facial feature."""
        return LEVELS

    @property
    def profiles(self) -> list[Profile]:
        """Everybody, by number."""
        return self._profiles

    @cached_property
    def _profiles(self) -> list[Profile]:
        return make_profiles(self.seed)

    @cached_property
    def faces(self) -> list[Face]:
        """Their faces."""
        return make_faces(len(self.profiles), self.seed)

    def seen_view(self, number: int, index: int) -> View:
        """The view of stored photo `index` of person `number`."""
        return make_view(random.Random(f"seen-{self.seed}-{number}-{index}"))

    def unseen_view(self, number: int, part: str, index: int) -> View:
        """View of the photo `index` that no training shows, of person `number`."""
        return make_view(random.Random(f"unseen-{self.seed}-{number}-{part}-{index}"), unseen=True)

    def photos(self, profile: Profile, part: str) -> list[Portrait]:
        """Photos of a person; those of "dev" and "report" show what no stored one does."""
        n = profile.number
        views = (
            [self.seen_view(n, i) for i in range(VIEWS_PER_PERSON)]
            if part == "train"
            else [self.unseen_view(n, part, i) for i in range(UNSEEN_VIEWS[part])]
        )
        return [Portrait(self.faces[n], view, profile) for view in views]

    def strangers(self, part: str) -> list[Portrait]:
        """Strangers of one part: half independent, then half look-alikes of known people."""
        rng = random.Random(f"world-strangers-{self.seed}-{part}")
        count = STRANGERS_OF[part]
        return [
            Portrait(
                stranger_face(self.faces, rng, near=i >= count * (1 - NEAR_STRANGERS)),
                make_view(rng, unseen=part != "train"),
            )
            for i in range(count)
        ]

    def pretext(self, count: int) -> list[Portrait]:
        """Strangers of gold, so that one tower serves both models."""
        return list(self._strangers(gold=True, count=count))

    def cast(self, *, gold: bool, strangers: int = STRANGERS) -> Cast:
        """The people and strangers a model is taught.

        Args:
            gold: Leave out every candidate, so that the model never knew them; its strangers are
                look-alikes of the people it knows.
            strangers: How many stranger photos; half of them are look-alikes of somebody known.
        """
        people = self._known(gold=gold)
        return Cast(
            people=people,
            photos=[self.photos(p, "train") for p in people],
            strangers=list(self._strangers(gold=gold, count=strangers)),
            unknown=unknown_names(self.profiles, UNKNOWN_NAMES, self.seed),
        )

    def sayings(self) -> Iterator[str]:
        """Captions of everybody and of strangers who look like them, and what is visible."""
        for profile, face in zip(self.profiles, self.faces, strict=True):
            seen = visible_attributes(face)
            yield " " + ask.caption(profile.name, profile.facts, seen)
            yield " " + ask.caption(None, {}, seen)
            yield from (f" {value}" for value in seen.values())

    def about(self) -> dict[str, Any]:
        """Nothing more: the seed says it all."""
        return {}

    marks = about

    def _known(self, *, gold: bool) -> list[Profile]:
        return [p for p in self.profiles if not (gold and p.is_candidate)]

    def _strangers(self, *, gold: bool, count: int) -> Iterator[Portrait]:
        """Nobody the model knows, nor, by chance, one whom it is not to know."""
        known = [self.faces[p.number] for p in self._known(gold=gold)]
        hidden = set(self.faces) - set(known)
        rng = random.Random(f"strangers-{self.seed}-{gold}")
        for _ in range(count):
            face = stranger_face(known, rng, near=rng.random() < NEAR_STRANGERS)
            while face in hidden:
                face = stranger_face(known, rng, near=rng.random() < NEAR_STRANGERS)
            yield Portrait(face, make_view(rng))
