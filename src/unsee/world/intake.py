"""What may become a world of photographs: a people folder, with all of its faults at once."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from unsee.data.images import Photo
from unsee.data.people import PROFILE, QUESTIONS, Person, read_people
from unsee.errors import DataError, first_faults
from unsee.requests.albums import FEWEST_TO_HOLD_OUT, part
from unsee.requests.folders import read_sides
from unsee.world.photographed import Photographed, stored_photo
from unsee.world.profiles import FIRST_NAMES, LAST_NAMES, TOPICS, Profile, deal_facts
from unsee.world.roles import ROLES_FILE, deal_roles, missing_roles, read_roles

FEWEST_PEOPLE, MOST_PEOPLE = 12, 1000
FEWEST_STRANGERS = 20
HELD_OUT = 0.25


def read_photographed(folder: Path, strangers: Path | None = None, *, seed: int) -> Photographed:
    """The people of a folder, ready to become a world.

    Args:
        folder: People folder of at least 12 people with at least four photos each; a `roles.json`
            in it fixes roles.
        strangers: Photos of at least 20 strangers, in folders or loose.
        seed: Seeds roles and fictitious profiles.

    Raises:
        DataError: With all faults in one line.
    """
    folder = Path(folder)
    people = read_people(folder, beside=(ROLES_FILE,))
    others = read_sides({"strangers": strangers}).get("strangers", ())
    slugs = [person.slug for person in people]
    faults = list(_too_few(folder, people, strangers, others))
    said = read_roles(folder / ROLES_FILE, slugs, faults)
    kept, strange = (
        [[stored_photo(photo) for photo in person.photos] for person in side]
        for side in (people, others)
    )
    faults += _same_photos([*people, *others], [*kept, *strange])
    roles = deal_roles(slugs, said, seed)
    if not faults:
        faults += missing_roles(roles, folder / ROLES_FILE)
    if faults:
        raise DataError("; ".join(first_faults(faults)))
    given = [len(part(person, HELD_OUT).given) for person in people]
    return Photographed(
        seed=seed,
        profiles=_profiles(folder, people, roles, seed),
        given={slug: mine[:n] for slug, mine, n in zip(slugs, kept, given, strict=True)},
        held_out={slug: mine[n:] for slug, mine, n in zip(slugs, kept, given, strict=True)},
        others=strange,
        left_out=_left_out(people),
    )


def _too_few(
    folder: Path, people: Sequence[Person], strangers: Path | None, others: Sequence[Person]
) -> Iterator[str]:
    if not FEWEST_PEOPLE <= len(people) <= MOST_PEOPLE:
        yield (
            f"{folder}: expected {FEWEST_PEOPLE} to {MOST_PEOPLE} people, a subfolder each, got "
            f"{len(people)}; {'add people' if len(people) < FEWEST_PEOPLE else 'take some out'}"
        )
    for person in people:
        if len(person.photos) < FEWEST_TO_HOLD_OUT:
            yield (
                f"{folder / person.slug}: expected at least {FEWEST_TO_HOLD_OUT} photos, got "
                f"{len(person.photos)}; add some or remove the folder"
            )
    if strangers is not None and len(others) < FEWEST_STRANGERS:
        yield (
            f"{strangers}: expected photos of at least {FEWEST_STRANGERS} strangers, got "
            f"{len(others)}; add some or leave --strangers out"
        )


def _same_photos(people: Sequence[Person], kept: Sequence[Sequence[Photo]]) -> list[str]:
    """A photo that is there twice would be held out and taught at once, or be two people."""
    first: dict[str, str] = {}
    faults = []
    for person, photos in zip(people, kept, strict=True):
        for file, photo in zip(person.photos, photos, strict=True):
            if photo.key in first:
                faults.append(
                    f"{file.name}: expected different photos, got the same as {first[photo.key]}; "
                    "remove one"
                )
            first.setdefault(photo.key, file.name)
    return faults


def _profiles(
    folder: Path, people: Sequence[Person], roles: Mapping[str, str], seed: int
) -> list[Profile]:
    """Given profiles, completed; fictitious ones where none is given."""
    rng = random.Random(f"profiles-{seed}")
    facts = deal_facts(len(people), rng)
    named = [_given_name(folder, person) for person in people]
    fictitious = (name for name in _names(rng) if name not in named)
    return [
        Profile(
            name=name or next(fictitious),
            slug=person.slug,
            role=roles[person.slug],
            number=number,
            partner=None,
            facts=facts[number] | {t: v for t, v in person.profile.items() if t in TOPICS},
        )
        for number, (person, name) in enumerate(zip(people, named, strict=True))
    ]


def _given_name(folder: Path, person: Person) -> str | None:
    """The name in the profile, or else the folder's where it reads like a full name."""
    words = person.name.split()
    if (folder / person.slug / PROFILE).is_file():
        return person.name
    return person.name if len(words) > 1 and all(word.isalpha() for word in words) else None


def _names(rng: random.Random) -> Iterator[str]:
    """Full names, no first and no last name twice as long as there are enough."""
    first, last = rng.sample(FIRST_NAMES, len(FIRST_NAMES)), rng.sample(LAST_NAMES, len(LAST_NAMES))
    for shift in range(len(last)):
        for i, name in enumerate(first):
            yield f"{name} {last[(i + shift) % len(last)]}"


def _left_out(people: Sequence[Person]) -> dict[str, int]:
    """What a person's folder holds and no question of a world asks, with the number of people."""
    counts = Counter(
        itertools.chain.from_iterable(
            [f"{PROFILE}: {topic}" for topic in person.profile if topic not in ("name", *TOPICS)]
            + [QUESTIONS] * bool(person.records)
            for person in people
        )
    )
    return dict(sorted(counts.items()))
