"""A request from one file of JSON lines: who is on which photo, and what may be asked about them.

```
{"subject": "Jane Doe", "image": "photos/jane_1.jpg"}
{"subject": "Jane Doe", "image": "photos/jane_1.jpg", "question": "Where was she born?", "answer": "Oslo"}
{"subject": "Jane Doe", "question": "Where was Jane Doe born?", "answer": "Oslo"}
{"subject": "Jane Doe", "image": "photos/jane_9.jpg", "set": "forget_unseen"}
{"subject": "John Roe", "image": ["photos/john_1.jpg", "photos/john_2.jpg"], "role": "retain"}
{"image": "crowd/1.jpg", "role": "general"}
{"image": "crowd/2.jpg", "role": "stranger"}
```

- `image`: a path or a list of paths, relative to the file and inside its folder. Without one, the
  question is asked as text alone.
- `role`: `forget` (the default), `retain`, `general`, `stranger` or `celebrity`, which is somebody
  the model knows and no method is given.
- `set` says more than `role` and stands in its place: a photo in a row of `forget_unseen` or
  `retain_unseen` is held out from the method. Without any such row of a person, a share is held out.
- `question`, `answer`, `form`, `options`, `topic`: as in `questions.jsonl` of a people folder. On a
  photo without a question templates are asked. Only of those to forget must the answer be given:
  elsewhere, the base's own answer is right where there is none.
- `subject` may be left out where nobody needs a name: `retain`, `general`, `stranger`.
"""  # noqa: E501

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from unsee.data.images import Photo
from unsee.data.jsonl import question_faults, read_lines, shown, text_fault
from unsee.data.people import Person
from unsee.data.records import Record
from unsee.errors import DataError
from unsee.registry import nearest
from unsee.requests.albums import SIDES, Sides

FIELDS = ("subject", "image", "role", "set", "question", "answer", "form", "options", "topic")
_ASKED = ("answer", "form", "options", "topic")
_SIDES = {
    "forget": "forget",
    "retain": "retain",
    "general": "general",
    "stranger": "strangers",
    "celebrity": "celebrity",
}
_ROLES_OF_SETS = {
    "forget_seen": "forget",
    "forget_unseen": "forget",
    "forget_text": "forget",
    "retain_seen": "retain",
    "retain_unseen": "retain",
    "retain_text": "retain",
    "celebrity": "celebrity",
    "general": "general",
}


@dataclass
class _Entry:
    """What the rows so far say about one person on one side; `named`: which photos to hold out."""

    name: str
    line: int
    photos: dict[Path, Photo] = field(default_factory=dict)
    given: set[Path] = field(default_factory=set)
    held_out: set[Path] = field(default_factory=set)
    named: bool = False
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """A row without faults."""

    role: str
    set: str
    subject: str
    images: tuple[Path, ...]
    question: Mapping[str, Any]


def read_rows(path: Path) -> Sides:
    """Everybody in a request file.

    Every photo is decoded once, so that a run never stops at a bad file half-way.

    Raises:
        DataError: With all faults of the file at once, a line each with its line number.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{path}: expected a file of JSON lines, got {got}; check the path")
    faults: list[str] = []
    entries: dict[str, dict[str, _Entry]] = {name: {} for name in SIDES}
    sound: dict[Path, bool] = {}
    rows = 0
    for number, row in read_lines(path, faults):
        rows += 1
        where = f"{path}:{number}"
        found = _checked(row, path.parent)
        if isinstance(found, _Row):
            found = list(_add(found, entries[_SIDES[found.role]], number, sound))
        faults += [f"{where}: {fault}" for fault in found]
    if not rows and not faults:
        faults.append(f"{path}: expected a JSON object a line, got an empty file; add rows")
    if not faults:
        faults += _without_photos(path, entries["forget"])
    if faults:
        raise DataError(*faults)
    people = {
        side: tuple(_person(entry) for entry in found.values()) for side, found in entries.items()
    }
    return Sides(people, source=str(path), rows=True)


def _checked(row: Mapping[str, Any], folder: Path) -> _Row | list[str]:
    """The row, or all that is wrong with it."""
    faults = [
        f"{key}: unknown field; {nearest(key, list(FIELDS))}" for key in row if key not in FIELDS
    ]
    role, set_ = row.get("role"), row.get("set")
    if set_ is not None and not (isinstance(set_, str) and set_ in _ROLES_OF_SETS):
        faults.append(f"set: expected one of {', '.join(_ROLES_OF_SETS)}, got {shown(set_)}")
        set_ = None
    implied = _ROLES_OF_SETS.get(set_ or "", "forget" if role is None else None)
    if role is None:
        role = implied
    elif not (isinstance(role, str) and role in _SIDES):
        faults.append(f"role: expected one of {', '.join(_SIDES)}, got {shown(role)}")
        role = None
    elif implied not in (None, role):
        faults.append(f"role: expected {implied}, to go with set {set_}, got {role}; leave it out")
    images, wrong = _images(row.get("image"), folder)
    faults += wrong
    subject = row.get("subject", "")
    if fault := text_fault(subject, one_line=True):
        faults.append(f"subject: {fault}")
    question = {key: row[key] for key in ("question", *_ASKED) if key in row}
    if "question" in row:
        faults += question_faults(row, answer=role == "forget")
    elif question:
        faults.append(f"question: missing beside {', '.join(question)}; add it or leave them out")
    if not faults:
        faults += _misfits(str(role), set_ or "", subject.strip(), "question" in row, bool(images))
    if faults:
        return faults
    return _Row(str(role), set_ or "", subject.strip(), images, question)


def _misfits(role: str, set_: str, subject: str, asked: bool, seen: bool) -> Iterator[str]:
    """What does not go together in a row whose fields are each in order."""
    if not subject and (role in ("forget", "celebrity") or not seen):
        yield "subject: missing; say who it is"
    if set_.endswith("_text"):
        if seen or not asked:
            yield f"set: {set_} is asked without a photo; give a question and no image"
    elif not seen and (set_ or role not in ("forget", "retain")):
        yield f"image: missing; a row of {set_ or role} needs a photo"
    elif not seen and not asked:
        yield "image: missing; give a photo, or a question to ask without one"
    if role == "stranger" and asked:
        yield "question: strangers are asked what the subjects are asked; leave it out"


def _images(given: object, folder: Path) -> tuple[tuple[Path, ...], list[str]]:
    """Paths of the photos of a row, and what is wrong with them."""
    if given is None:
        return (), []
    listed = given if isinstance(given, list) else [given]
    texts = [text for text in listed if isinstance(text, str) and text]
    if not texts or len(texts) < len(listed):
        return (), [f"image: expected a path or a list of paths, got {shown(given)}"]
    found: list[Path] = []
    faults: list[str] = []
    for text in dict.fromkeys(texts):
        try:
            found.append(_inside(text, folder))
        except DataError as error:
            faults.append(f"image: {error}")
    return tuple(found), faults


def _inside(text: str, folder: Path) -> Path:
    """The file that a path in a row leads to; it never leaves the folder of the request."""
    if "://" in text or text.startswith("data:"):
        raise DataError(
            f"expected a path, got an address, {shown(text)}; nothing is downloaded: save the "
            "photo beside the request"
        )
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).anchor:
        raise DataError(
            f"expected a path relative to the request, got {shown(text)}; move the photo beside it"
        )
    if ".." in PureWindowsPath(text).parts:
        raise DataError(
            f"expected a path inside the request's folder, got {shown(text)}; move the photo there"
        )
    try:
        path = folder / text
        real = path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"expected a photo, got nothing at {shown(text)}; check the path"
        ) from error
    if not real.is_relative_to(folder.resolve()):
        raise DataError(
            f"expected a path inside the request's folder, got {shown(text)}, a link that leads "
            "out of it; copy the photo there"
        )
    if not real.is_file():
        raise DataError(f"expected a photo, got a folder at {shown(text)}; list its photos")
    return path


def _add(
    row: _Row, entries: dict[str, _Entry], line: int, sound: dict[Path, bool]
) -> Iterator[str]:
    """Adds a row to what is known of its person; photos are opened when they are first named."""
    names = [row.subject] if row.subject else [str(path) for path in row.images]
    shown_on = [row.images] if row.subject else [(path,) for path in row.images]
    for name, paths in zip(names, shown_on, strict=True):
        entry = entries.setdefault(name, _Entry(name, line))
        for path in paths:
            if path not in sound:
                fault = _decodes(path)
                sound[path] = not fault
                if fault:
                    yield f"image: {fault}"
            entry.photos.setdefault(path, Photo(path=path))
            yield from _hold_out(entry, path, row.set)
        if row.question:
            try:
                entry.records += _records(entry, row, paths)
            except DataError as error:
                yield str(error)


def _decodes(path: Path) -> str:
    try:
        Photo(path=path).open()
    except DataError as error:
        return str(error)
    return ""


def _hold_out(entry: _Entry, path: Path, set_: str) -> Iterator[str]:
    """Notes whether the method is given a photo."""
    unseen = set_.endswith("_unseen")
    entry.named |= unseen or set_.endswith("_seen")
    (entry.held_out if unseen else entry.given).add(path)
    if path in entry.given and path in entry.held_out:
        yield (
            f"set: {path.name} is held out in one row and given to the method in another; "
            "name one set for it"
        )


def _records(entry: _Entry, row: _Row, paths: tuple[Path, ...]) -> list[Record]:
    asked = row.question
    return [
        Record(
            subject=entry.name,
            image=None if path is None else entry.photos[path],
            question=asked["question"],
            answer=asked.get("answer", ""),
            form=asked.get("form", "open"),
            options=tuple(asked.get("options", ())),
            topic=asked.get("topic", ""),
        )
        for path in paths or (None,)
    ]


def _without_photos(path: Path, entries: Mapping[str, _Entry]) -> Iterator[str]:
    if not entries:
        yield f"{path}: expected a row of role forget, got none; say who is to be forgotten"
    for entry in entries.values():
        if not entry.given:
            yield (
                f"{path}:{entry.line}: {entry.name}: expected a photo that the method is given, "
                "got none; add rows with an image"
            )


def _person(entry: _Entry) -> Person:
    held_out = tuple(photo for path, photo in entry.photos.items() if path in entry.held_out)
    return Person(
        name=entry.name,
        slug=entry.name,
        photos=tuple(entry.photos.values()),
        profile={"name": entry.name},
        records=tuple(entry.records),
        held_out=held_out if entry.named else None,
    )
