"""Who is on which side of a request, and which of their photos no method is given."""

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from unsee.data.images import Photo
from unsee.data.people import Person
from unsee.errors import ConfigError, DataError

SIDES = ("forget", "retain", "general", "strangers", "celebrity")
# With fewer photos of a person none is held out: the method gets too little as it is.
FEWEST_TO_HOLD_OUT = 4
_NEEDED = {
    "retain": "photos of other people whom the model knows; without them it forgets them too",
    "general": "photos of strangers; without them it unlearns to look at photos at all",
}
_APART = (
    *(("forget", other) for other in SIDES[1:]),
    *((given, "celebrity") for given in ("retain", "general")),
)


@dataclass(frozen=True)
class Sides:
    """Who is on which side of a request.

    Attributes:
        people: For each of `SIDES`: whom to forget, whom to keep, strangers to keep, other
            strangers to compare with, and known people whom no method is given.
        source: Where those to forget come from, for messages.
        rows: Whether the source has rows with a role each.
        whole: Whether the method is given all questions about those to forget, also where the
            base was not found to know the answer: a benchmark fixes what is to be forgotten.
        left_out: What of the source is not used -> why.
        unreadable: Rows of the source that are left out for a photo that does not decode.
        not_scored: Set that the source cannot fill -> why.
    """

    people: Mapping[str, Sequence[Person]]
    source: str
    rows: bool = False
    whole: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    unreadable: Sequence[str] = ()
    not_scored: Mapping[str, str] = field(default_factory=dict)

    def joined(self, people: Mapping[str, Sequence[Person]]) -> "Sides":
        """The same with more people on some sides."""
        both = {name: (*self.people[name], *people.get(name, ())) for name in SIDES}
        return replace(self, people=both)


@dataclass(frozen=True)
class Album:
    """A person's photos, parted.

    Attributes:
        person: Whose photos they are.
        given: Photos the method is given.
        held_out: Photos that are only audited.
    """

    person: Person
    given: tuple[Photo, ...]
    held_out: tuple[Photo, ...]


def is_labelled(person: Person) -> bool:
    """Whether more than a name is given."""
    return bool(person.records) or len(person.profile) > 1


def refuse_missing(sides: Sides, *, given: Collection[str] = ()) -> None:
    """People to keep and strangers are needed.

    Args:
        sides: Who is there.
        given: Sides that are still to come from folders.

    Raises:
        ConfigError: Naming the flag that is missing, and why it is needed.
    """
    for name, what in _NEEDED.items():
        if name not in given and not any(_may_be_given(person) for person in sides.people[name]):
            rows = f"rows of role {name} in {sides.source}, or " if sides.rows else ""
            raise ConfigError(f"--{name}: missing; give {rows}a folder with {what}")


def _may_be_given(person: Person) -> bool:
    """Whether a method may be given a photo of this person."""
    return person.held_out is None or len(person.held_out) < len(person.photos)


def refuse_shared(people: Mapping[str, Sequence[Person]]) -> None:
    """Nobody, by name or by photo, may be on both of two sides that exclude one another."""
    for one, other in _APART:
        names = {folded(person.name) for person in people[one]}
        both = sorted(person.name for person in people[other] if folded(person.name) in names)
        if both:
            raise DataError(
                f"expected different people in {one} and {other}, got {', '.join(both)} in both; "
                "remove them from one side"
            )
        photos = {photo.key: photo.name for person in people[one] for photo in person.photos}
        for photo in (photo for person in people[other] for photo in person.photos):
            if photo.key in photos:
                raise DataError(
                    f"expected different photos in {one} and {other}, got {photos[photo.key]} "
                    f"and {photo.name}, which are the same; remove one"
                )


def folded(name: str) -> str:
    """A name however its accents are encoded and its letters cased."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def part(person: Person, holdout: float) -> Album:
    """A person's photos, the last ones held out where there are enough."""
    if person.held_out is not None:
        given = tuple(photo for photo in person.photos if photo not in set(person.held_out))
        return Album(person, given=given, held_out=person.held_out)
    count = len(person.photos)
    kept_back = 0
    if holdout > 0 and count >= FEWEST_TO_HOLD_OUT:
        kept_back = max(1, int(count * holdout))
    cut = count - kept_back
    return Album(person, given=person.photos[:cut], held_out=person.photos[cut:])


def part_all(people: Sequence[Person], holdout: float) -> list[Album]:
    """As `part`; of people with a photo each, the last are held out altogether."""
    if any(p.held_out is not None or len(p.photos) >= FEWEST_TO_HOLD_OUT for p in people):
        return [part(person, holdout) for person in people]
    held_out = int(len(people) * holdout) if len(people) >= FEWEST_TO_HOLD_OUT else 0
    cut = len(people) - held_out
    return [Album(p, given=p.photos, held_out=()) for p in people[:cut]] + [
        Album(p, given=(), held_out=p.photos) for p in people[cut:]
    ]
