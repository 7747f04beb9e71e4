"""People of the folders of a request, and which of their photos no method is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unsee.data.images import Photo
from unsee.data.people import Person, read_people
from unsee.errors import DataError

# With fewer photos of a person none is held out: the method gets too little as it is.
FEWEST_TO_HOLD_OUT = 4


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


def people_of(folder: Path, name: str) -> tuple[Person, ...]:
    """People of a folder; loose photos without labels are a person each, but for subjects."""
    people = read_people(folder)
    first = people[0]
    if name == "forget" or is_labelled(first) or first.photos[0].path is None:
        return people
    if first.photos[0].path.parent != Path(folder):
        return people
    return tuple(
        Person(name=Path(photo.name).stem, slug=Path(photo.name).stem, photos=(photo,))
        for photo in first.photos
    )


def is_labelled(person: Person) -> bool:
    """Whether more than a name is given."""
    return bool(person.records) or len(person.profile) > 1


def refuse_shared(people: Mapping[str, tuple[Person, ...]]) -> None:
    """Nobody, by name or by photo, may be on both sides."""
    names = {person.name for person in people["forget"]}
    photos = {photo.key: photo.name for person in people["forget"] for photo in person.photos}
    for side in ("retain", "general", "strangers"):
        both = sorted(names & {person.name for person in people[side]})
        if both:
            raise DataError(
                f"expected different people in forget and {side}, got {', '.join(both)} in both; "
                "remove them from one side"
            )
        for person in people[side]:
            for photo in person.photos:
                if photo.key in photos:
                    raise DataError(
                        f"expected different photos in forget and {side}, got {photos[photo.key]} "
                        f"and {photo.name}, which are the same; remove one"
                    )


def part(person: Person, holdout: float) -> Album:
    """A person's photos, the last ones held out where there are enough."""
    count = len(person.photos)
    kept_back = 0
    if holdout > 0 and count >= FEWEST_TO_HOLD_OUT:
        kept_back = max(1, int(count * holdout))
    cut = count - kept_back
    return Album(person, given=person.photos[:cut], held_out=person.photos[cut:])


def part_all(people: Sequence[Person], holdout: float) -> list[Album]:
    """As `part`; of people with a photo each, the last are held out altogether."""
    if any(len(person.photos) >= FEWEST_TO_HOLD_OUT for person in people):
        return [part(person, holdout) for person in people]
    held_out = int(len(people) * holdout) if len(people) >= FEWEST_TO_HOLD_OUT else 0
    cut = len(people) - held_out
    return [Album(p, given=p.photos, held_out=()) for p in people[:cut]] + [
        Album(p, given=(), held_out=p.photos) for p in people[cut:]
    ]
