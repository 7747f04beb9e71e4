"""People folders: photos of each person, with a profile and questions where there are any.

```
people/
  jane_doe/        photo_00.jpg ...   profile.json (optional)   questions.jsonl (optional)
```
`profile.json` is `{"name": "Jane Doe", "<topic>": "<value>", ...}`. A line of `questions.jsonl` is
`{"question", "answer", "form"?, "options"?, "topic"?, "image"?}`; with `image` true, which is the
default, it is asked on each photo, else as text alone. A folder that holds photos itself is one
person, named after the folder.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unsee.data.images import SUFFIXES, Photo
from unsee.data.jsonl import parse, question_faults, read_lines, shown, text_fault
from unsee.data.records import Record
from unsee.errors import DataError, first_faults

PROFILE = "profile.json"
QUESTIONS = "questions.jsonl"
_FIELDS = ("question", "answer", "form", "options", "topic", "image")
_PHOTO_KINDS = "jpg, png, webp or pgm"


@dataclass(frozen=True)
class Person:
    """One person of a people folder.

    Attributes:
        name: Name in the profile, else the folder's name in words.
        slug: Name of the folder.
        photos: In the order of the file names or rows; in a people folder at least one.
        profile: Value by topic; holds "name" also where there is no `profile.json`.
        records: Questions of `questions.jsonl` on every photo they are asked on; empty
            where there is no such file.
        held_out: Those of `photos` that no method may be given; None leaves it to the request,
            which holds out a share.
        asked_only: Questions that no method may be given, on whatever photo.
    """

    name: str
    slug: str
    photos: tuple[Photo, ...]
    profile: Mapping[str, str] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    held_out: tuple[Photo, ...] | None = None
    asked_only: tuple[Record, ...] = ()


def read_people(folder: Path | str, *, beside: Collection[str] = ()) -> tuple[Person, ...]:
    """Everybody in a people folder, in the order of the folder names.

    Every photo is decoded once, so that a run never stops at a bad file half-way.

    Args:
        folder: Subfolders of people, or one person's own folder.
        beside: Names of files that may lie beside the subfolders.

    Raises:
        DataError: With all faults of the folder at once, each with file and line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: expected a folder with one subfolder a person, "
            f"got {'a file' if folder.exists() else 'nothing'}; check the path"
        )
    entries = [entry for entry in _entries(folder) if entry.name not in beside]
    if not entries:
        raise DataError(
            f"{folder}: expected a folder with one subfolder a person, got an empty folder; "
            f"add people/<name>/ with {_PHOTO_KINDS} photos"
        )
    faults: list[str] = []
    if any(_is_photo(entry) or entry.name in (PROFILE, QUESTIONS) for entry in entries):
        homes = [folder]
    else:
        homes = [entry for entry in entries if entry.is_dir()]
        faults += [
            f"{entry}: expected a subfolder a person, got a file; move it into one or remove it"
            for entry in entries
            if not entry.is_dir()
        ]
    people = [_read_person(home, faults) for home in homes]
    faults += _shared_names(people)
    if faults:
        raise DataError(*first_faults(faults))
    return tuple(people)


def write_person(
    folder: Path,
    *,
    profile: Mapping[str, str],
    photos: Sequence[Image.Image],
    questions: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Writes one person the way `read_people` reads it.

    Args:
        folder: The person's own folder; made if it is not there.
        profile: Value by topic, with "name".
        photos: Written without metadata as `photo_00.png` and so on.
        questions: Rows of `questions.jsonl`; no file is written without any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(photos):
        photo.save(folder / f"photo_{number:02d}.png", optimize=True)
    text = json.dumps(dict(profile), indent=1, ensure_ascii=False)
    (folder / PROFILE).write_text(text + "\n", encoding="utf-8")
    lines = [json.dumps(dict(row), ensure_ascii=False) + "\n" for row in questions]
    if lines:
        (folder / QUESTIONS).write_text("".join(lines), encoding="utf-8")


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; hidden files (`.DS_Store` ...) are nobody's data."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _is_photo(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.is_dir()


def _read_person(folder: Path, faults: list[str]) -> Person:
    entries = _entries(folder)
    photos = tuple(Photo(path=entry) for entry in entries if _is_photo(entry))
    slug = folder.resolve().name
    profile = _read_profile(folder / PROFILE, faults)
    name = profile.get("name", slug.replace("_", " ").replace("-", " ").strip().title())
    if text_fault(slug, one_line=True):
        faults.append(
            f"{folder}: expected a folder name in UTF-8 without control characters, "
            f"got {shown(slug)}; rename it, or set a UTF-8 locale such as LC_ALL=C.UTF-8"
        )
    if not name:
        faults.append(f"{folder}: expected a name, got {shown(slug)}; rename it after the person")
    if not photos:
        faults.append(
            f"{folder}: expected at least one photo ({_PHOTO_KINDS}), got none; "
            f"add photos of {name} or remove the folder"
        )
    for entry in entries:
        if not _is_photo(entry) and entry.name not in (PROFILE, QUESTIONS):
            got = "a folder" if entry.is_dir() else f"a {entry.suffix or 'nameless'} file"
            faults.append(
                f"{entry}: expected {_PHOTO_KINDS} photos, {PROFILE} or {QUESTIONS}, got {got}; "
                "convert, move or remove it"
            )
    for photo in photos:
        try:
            photo.open()
        except DataError as error:
            faults.append(str(error))
    records = tuple(_read_questions(folder / QUESTIONS, name, photos, faults))
    return Person(
        name=name, slug=slug, photos=photos, profile={**profile, "name": name}, records=records
    )


def _read_profile(path: Path, faults: list[str]) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: expected UTF-8 text, got {error}; save it again as UTF-8")
        return {}
    try:
        profile = parse(text)
    except json.JSONDecodeError as error:
        faults.append(f"{path}:{error.lineno}: expected JSON, got {error.msg}; correct the line")
        return {}
    except DataError as error:
        faults.append(f"{path}: {error}")
        return {}
    if not isinstance(profile, dict):
        faults.append(f"{path}: expected an object of topics, got {shown(profile)}; write {{...}}")
        return {}
    texts = {}
    for topic, value in profile.items():
        if not isinstance(value, str) or not value.strip():
            faults.append(f"{path}: {topic}: expected text, got {shown(value)}; write it in quotes")
        elif fault := text_fault(topic) or text_fault(value, one_line=topic == "name"):
            faults.append(f"{path}: {shown(topic)}: {fault}")
        else:
            texts[topic] = value.strip()
    return texts


def _read_questions(
    path: Path, name: str, photos: Sequence[Photo], faults: list[str]
) -> Iterable[Record]:
    if not path.exists():
        return
    for number, row in read_lines(path, faults):
        try:
            yield from _question_records(row, name, photos)
        except DataError as error:
            faults.append(f"{path}:{number}: {error}")


def _question_records(row: Mapping[str, Any], name: str, photos: Sequence[Photo]) -> list[Record]:
    faults = [f"{key}: unknown field" for key in row if key not in _FIELDS]
    faults += question_faults(row)
    asked_on_photos = row.get("image", True)
    if not isinstance(asked_on_photos, bool):
        faults.append(f"image: expected true or false, got {shown(asked_on_photos)}")
    if faults:
        raise DataError("; ".join(faults) + f"; fields are {', '.join(_FIELDS)}")
    return [
        Record(
            subject=name,
            image=photo,
            question=row["question"],
            answer=row["answer"],
            form=row.get("form", "open"),
            options=tuple(row.get("options", ())),
            topic=row.get("topic", ""),
        )
        for photo in (photos if asked_on_photos else (None,))
    ]


def _shared_names(people: Sequence[Person]) -> list[str]:
    homes: dict[str, list[str]] = {}
    for person in people:
        homes.setdefault(person.name, []).append(person.slug)
    return [
        f"{name}: expected one folder a person, got {', '.join(slugs)}; merge or rename them"
        for name, slugs in homes.items()
        if len(slugs) > 1
    ]
