"""A request from people folders, one for each side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unsee.data.people import Person, read_people
from unsee.models.load import VLM
from unsee.requests.albums import SIDES, Sides, is_labelled
from unsee.requests.people import from_people
from unsee.requests.request import Request


def from_folders(
    subject: Path,
    retain: Path | None,
    general: Path | None,
    strangers: Path | None = None,
    *,
    vlm: VLM,
    **options: Any,
) -> Request:
    """The request to forget the people in a folder; see `from_people`.

    Args:
        subject: People folder, or one person's folder, of those to forget.
        retain: People folder, or loose photos, of those to keep.
        general: Photos of strangers, in folders or loose.
        strangers: Photos of other strangers, to see how often the base gives the subjects'
            answers to anybody; at least 20.
        vlm: The base.
        options: Of `from_people`.

    Raises:
        ConfigError: If `retain` or `general` is missing, or an option out of range.
        DataError: If a folder cannot be used, or the request is refused.
    """
    others = {"retain": retain, "general": general, "strangers": strangers}
    sides = read_subjects(subject).joined(read_sides(others))
    return from_people(sides, vlm=vlm, **options)


def read_subjects(folder: Path) -> Sides:
    """Those to forget, from a people folder or one person's folder.

    Raises:
        DataError: With all faults of the folder.
    """
    people = dict.fromkeys(SIDES, ()) | {"forget": read_people(folder)}
    return Sides(people, source=str(folder))


def read_sides(folders: Mapping[str, Path | None]) -> dict[str, tuple[Person, ...]]:
    """People of other sides by the name of the side; loose photos are a person each.

    Raises:
        DataError: With all faults of the first folder that has any.
    """
    return {name: _people(folder) for name, folder in folders.items() if folder is not None}


def _people(folder: Path) -> tuple[Person, ...]:
    people = read_people(folder)
    first = people[0]
    if is_labelled(first) or first.photos[0].path is None:
        return people
    if first.photos[0].path.parent != Path(folder):
        return people
    return tuple(
        Person(name=Path(photo.name).stem, slug=Path(photo.name).stem, photos=(photo,))
        for photo in first.photos
    )
