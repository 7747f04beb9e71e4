"""MLLMU-Bench's parquet files, read and written.

Liu et al. 2024, https://arxiv.org/abs/2410.22108. A row is a person. Evaluation files carry one
`image` (the Test_Set a list, `images`) and three tasks; training files carry `metadata`, a JSON
list of question and answer. The columns `question` and `answer` of an evaluation row are written
and read but become no records: the benchmark's own evaluation does not score them either.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from unsee.data import parquet
from unsee.data.images import Photo
from unsee.data.jsonl import shown, text_fault
from unsee.data.parquet import IMAGE, Place, encoded_bytes
from unsee.data.records import LETTERS, Form, Record
from unsee.errors import DataError, PhotoError

NAME = "MLLMU-Bench"
_CHOICE = pa.struct(
    [
        ("Question", pa.string()),
        ("Options", pa.struct([(letter, pa.string()) for letter in "ABCD"])),
        ("Correct_Answer", pa.string()),
    ]
)
_OPEN = pa.struct([("Question", pa.string()), ("Ground_Truth", pa.string()), ("Type", pa.string())])
_CHOICES = {"Image_Textual_Questions": True, "Pure_Text_Questions": False}
_TYPES = {"Image_Textual": True, "Pure_Text": False}
_TASKS = [
    ("ID", pa.string()),
    ("Directory", pa.string()),
    ("biography", pa.string()),
    ("question", pa.string()),
    ("answer", pa.string()),
    ("Classification_Task", pa.struct([(name, pa.list_(_CHOICE)) for name in _CHOICES])),
    ("Generation_Task", pa.list_(_OPEN)),
    ("Mask_Task", pa.list_(_OPEN)),
]
SCHEMAS = {
    "eval": pa.schema([("image", IMAGE), *_TASKS]),
    "test": pa.schema([("images", pa.list_(IMAGE)), *_TASKS]),
    "train": pa.schema([("image", IMAGE), ("ID", pa.string()), ("metadata", pa.string())]),
}
_READ_TASKS = ("ID", "Classification_Task", "Generation_Task", "Mask_Task")
# By the column that tells the kinds of file apart.
_REQUIRED = {
    "metadata": ("image", "metadata"),
    "images": ("images", *_READ_TASKS),
    "": ("image", *_READ_TASKS),
}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of one kind (see `SCHEMAS`); the file appears when it is complete.

    Args:
        path: Parquet file to write.
        rows: At least one; each with exactly the columns of its kind.

    Raises:
        DataError: If there are no rows, or a row has other columns than the first one's kind.
    """
    rows = iter(rows)
    first = next(rows, None)
    everything = () if first is None else chain([first], rows)
    parquet.write_rows(path, everything, SCHEMAS[_kind(first or ())])


def read_rows(path: Path, *, batch_size: int = 16) -> Iterator[dict[str, Any]]:
    """Rows of a file in MLLMU-Bench's schema, a few in memory at a time.

    Args:
        path: Parquet file of any configuration of the benchmark.
        batch_size: Rows in memory at once; a row may hold several megabytes of photos.

    Raises:
        DataError: If the file is missing or damaged, or lacks a column; before the first row.
    """
    return (row for _, row in read_places(path, batch_size=batch_size))


def read_places(path: Path, *, batch_size: int = 16) -> Iterator[tuple[Place, dict[str, Any]]]:
    """As `read_rows`, each row with its place."""
    return parquet.read_rows(path, NAME, _REQUIRED, batch_size=batch_size)


def read_records(
    path: Path, *, set_name: str = "", every_image: bool = False
) -> tuple[Record, ...]:
    """Records of a whole file, photos in memory; see `row_records`.

    Raises:
        DataError: With the faults of every row at once.
    """
    records: list[Record] = []
    faults: list[str] = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            records += row_records(row, set_name=set_name, every_image=every_image)
        except DataError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        raise DataError(*(f"{path}: {fault}" for fault in faults))
    return tuple(records)


def row_records(
    row: Mapping[str, Any],
    *,
    set_name: str = "",
    every_image: bool = False,
    place: Place | None = None,
) -> list[Record]:
    """Questions of one row. The subject is the ID; topics are not in the schema.

    Args:
        row: One row of `read_rows`.
        set_name: Set to put the records in.
        every_image: Ask every question on every photo of `images`, instead of going round
            the photos with one question each (the benchmark draws one at random).
        place: Where the row lies: its photos are then decoded once, and read again from there;
            without one they are kept in memory.

    Raises:
        DataError: With all faults of the row at once.
        PhotoError: If they are photos that do not decode, and nothing else.
    """
    faults: list[str] = []
    unreadable: list[str] = []
    photos = _photos(row, faults, unreadable, place)
    subject = row.get("ID") or ""
    if not isinstance(subject, str) or (not subject and "metadata" not in row):
        faults.append(f"ID: expected text, got {shown(subject) if subject else 'none'}")
        subject = ""
    records: list[Record] = []
    asked = 0
    for where, item, form, has_image in _items(row, faults):
        if not has_image:
            chosen: Sequence[Photo | None] = (None,)
        elif every_image or not photos:
            chosen = photos
        else:
            chosen = (photos[asked % len(photos)],)
            asked += 1
        try:
            options, answer = _answer(item, form)
            records += [
                Record(
                    subject=subject or str(item.get("ID", "")),
                    image=photo,
                    question=_text(item, "Question"),
                    answer=answer,
                    form=form,
                    options=options,
                    set=set_name,
                )
                for photo in chosen
            ]
        except DataError as error:
            faults.append(f"{where}: {error}")
    if faults or unreadable:
        error = DataError if faults else PhotoError
        raise error(f"ID {subject!r}: " + "; ".join([*unreadable, *faults]))
    return records


def _kind(columns: Iterable[str]) -> str:
    columns = set(columns)
    if "metadata" in columns:
        return "train"
    return "test" if "images" in columns else "eval"


def _photos(
    row: Mapping[str, Any], faults: list[str], unreadable: list[str], place: Place | None
) -> list[Photo]:
    column = "images" if "images" in row else "image"
    images = row[column] if column == "images" else [row[column]]
    photos = []
    for number, image in enumerate(_list(images, "images", faults)):
        try:
            if place is not None:
                item = number if column == "images" else None
                photos.append(place.photo(image, column, item))
            else:
                photos.append(Photo(data=encoded_bytes(image)))
        except PhotoError as error:
            unreadable.append(f"image {number}: {error}")
        except DataError as error:
            faults.append(f"image {number}: {error}")
    if not images:
        faults.append("images: expected at least one, got none")
    return photos


def _items(
    row: Mapping[str, Any], faults: list[str]
) -> Iterator[tuple[str, Mapping[str, Any], Form, bool]]:
    """Place, question, form and whether it is asked on a photo; for each question of a row."""
    if "metadata" in row:
        yield from _turns(row["metadata"], faults)
        return
    choices = row["Classification_Task"] or {}
    if not isinstance(choices, Mapping):
        faults.append(f"Classification_Task: expected a table, got {shown(choices)}")
        choices = {}
    for name, has_image in _CHOICES.items():
        where = f"Classification_Task.{name}"
        for number, item in enumerate(_tables(choices.get(name), where, faults)):
            yield f"{where}[{number}]", item, "choice", has_image
    tasks: tuple[tuple[str, Form], ...] = (("Generation_Task", "open"), ("Mask_Task", "cloze"))
    for name, form in tasks:
        for number, item in enumerate(_tables(row[name], name, faults)):
            where = f"{name}[{number}]"
            kind = item.get("Type")
            if not isinstance(kind, str) or kind not in _TYPES:
                faults.append(f"{where}: Type: expected {' or '.join(_TYPES)}, got {shown(kind)}")
            else:
                yield where, item, form, _TYPES[kind]


def _turns(
    metadata: object, faults: list[str]
) -> Iterator[tuple[str, Mapping[str, Any], Form, bool]]:
    """As `_items`, of a training row."""
    try:
        turns = json.loads(str(metadata))
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        faults.append("metadata: expected a JSON list of {Question, Answer}, got something else")
        return
    for number, turn in enumerate(turns):
        yield f"metadata[{number}]", turn, "open", True


def _list(value: object, where: str, faults: list[str]) -> list[Any]:
    """A list as it is; None is an empty one, and anything else a fault."""
    if value is None or isinstance(value, list):
        return value or []
    faults.append(f"{where}: expected a list, got {shown(value)}")
    return []


def _tables(value: object, where: str, faults: list[str]) -> list[Mapping[str, Any]]:
    """The tables of a list; everything else in it is a fault."""
    items = _list(value, where, faults)
    faults += [
        f"{where}[{number}]: expected a table, got {shown(item)}"
        for number, item in enumerate(items)
        if not isinstance(item, Mapping)
    ]
    return [item for item in items if isinstance(item, Mapping)]


def _answer(item: Mapping[str, Any], form: Form) -> tuple[tuple[str, ...], str]:
    """Options in letter order, empty but for a choice, and the right answer."""
    if form != "choice":
        return (), _text(item, "Ground_Truth" if "Ground_Truth" in item else "Answer")
    table = item.get("Options")
    if not isinstance(table, Mapping):
        raise DataError(f"Options: expected a table, got {shown(table)}")
    options = {letter: _text(table, letter) for letter in table if table[letter] is not None}
    letters = sorted(options)
    if letters != list(LETTERS[: len(letters)]):
        raise DataError(f"Options: expected letters from A on, got {', '.join(letters)}")
    return tuple(options[letter] for letter in letters), _text(item, "Correct_Answer").strip()


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if fault := text_fault(value):
        raise DataError(f"{key}: {fault}")
    return str(value)
