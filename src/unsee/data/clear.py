"""CLEAR's parquet files, read.

Dontsov et al. 2024, https://arxiv.org/abs/2410.18057; data set `therem/CLEAR`, which states no
licence. A row is a photo of a fictitious author, or a question of TOFU about one:

| files | columns |
|---|---|
| `forgetNN`, `retainMM`, `full` | `image`, `caption`, `name` (`retainMM` and `full` may lack it) |
| `forgetNN+tofu` and so on | `image` or null, `caption`, `question`, `answer` |
| `forgetNN_perturbed`, `retain_perturbed` | the first three, `paraphrased_caption`, |
| | `perturbed_captions[]`, `perturbed_names[]` |
| `real_faces`, `real_world` | `image`, `question`, `answer`, `options[]` |
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unsee.data import parquet
from unsee.data.images import Photo
from unsee.data.jsonl import shown, text_fault
from unsee.data.parquet import Place
from unsee.data.records import LETTERS, Record
from unsee.errors import DataError, PhotoError

NAME = "CLEAR"
# The benchmark trains on one of nine questions like this, drawn anew at each step; we ask one.
CAPTION_QUESTION = "Describe the person in this photo."
NAME_QUESTION = "What is the name of the person in the image?"
_TEXTS = ("caption", "question", "answer")


def read_photos(path: Path, *, named: bool = True) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows of photos with a caption, and the name where there is one.

    Args:
        path: `forgetNN`, `retainMM` or `full`.
        named: Whether the column `name` must be there.

    Raises:
        DataError: If the file is missing or damaged, or lacks a column; before the first row.
    """
    required = ("image", "caption", "name") if named else ("image", "caption")
    return parquet.read_rows(path, NAME, {"": required})


def read_perturbed(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows of a `_perturbed` file.

    Raises:
        DataError: If the file is missing or damaged, or lacks a column; before the first row.
    """
    lists = ("paraphrased_caption", "perturbed_captions", "perturbed_names")
    return parquet.read_rows(path, NAME, {"": ("image", "caption", "name", *lists)})


def read_questions(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Text-only rows of a `+tofu` file; its photos are not read.

    Raises:
        DataError: If the file is missing or damaged, or lacks a column; before the first row.
    """
    rows = parquet.read_rows(path, NAME, {"": ("image", *_TEXTS)}, columns=_TEXTS)
    return (
        (place, row) for place, row in rows if row["question"] is not None or not row["caption"]
    )


def read_options(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows of `real_faces` or `real_world`.

    Raises:
        DataError: If the file is missing or damaged, or lacks a column; before the first row.
    """
    return parquet.read_rows(path, NAME, {"": ("image", "question", "answer", "options")})


def photo_records(row: Mapping[str, Any], place: Place, subject: str) -> list[Record]:
    """The caption of a photo, and who it is where the row says so.

    Args:
        row: Of `read_photos`.
        place: Its place.
        subject: Who is on the photo, where the row does not say.

    Raises:
        DataError: With all faults of the row at once.
        PhotoError: If it is a photo that does not decode, and nothing else.
    """
    faults: list[str | PhotoError] = []
    photo = _photo(row, place, faults)
    caption = row["caption"]
    if fault := text_fault(caption) or _empty(caption):
        faults.append(f"caption: {fault}")
    name = row.get("name")
    if "name" in row and (fault := text_fault(name, one_line=True) or _empty(name)):
        faults.append(f"name: {fault}")
    if faults or photo is None:
        raise _refused(faults)
    named = name.strip() if name is not None else ""
    subject = named or subject
    records = [Record(subject, photo, CAPTION_QUESTION, caption, form="caption")]
    if named:
        records.append(Record(subject, photo, NAME_QUESTION, named, topic="name"))
    return records


def option_records(row: Mapping[str, Any], place: Place, subject: str) -> list[Record]:
    """A question on a photo, open and, where it has options, as a choice.

    Args:
        row: Of `read_options`.
        place: Its place.
        subject: What the question is about.

    Returns:
        One or two records; none where the row has no photo.

    Raises:
        DataError: With all faults of the row at once.
    """
    if row["image"] is None:
        return []
    faults: list[str | PhotoError] = []
    photo = _photo(row, place, faults)
    faults += _text_faults(row, "question", "answer")
    options = row["options"] or []
    faults += _option_faults("options", options)
    if faults or photo is None:
        raise _refused(faults)
    question, answer = row["question"], row["answer"]
    records = [Record(subject, photo, question, answer)]
    if options:
        texts, letter = with_answer(options, answer, seed=photo.key)
        records.append(Record(subject, photo, question, letter, form="choice", options=texts))
    return records


def question_and_answer(row: Mapping[str, Any]) -> tuple[str, str]:
    """The texts of a row of `read_questions`.

    Raises:
        DataError: With both faults at once.
    """
    if faults := _text_faults(row, "question", "answer"):
        raise DataError("; ".join(faults))
    return row["question"], row["answer"]


def name_choice(row: Mapping[str, Any], place: Place) -> Record:
    """Who it is, to be chosen among the wrong names of a `_perturbed` row.

    Raises:
        DataError: With all faults of the row at once.
        PhotoError: If it is a photo that does not decode, and nothing else.
    """
    faults: list[str | PhotoError] = []
    photo = _photo(row, place, faults)
    name, wrong = row["name"], row["perturbed_names"]
    if fault := text_fault(name, one_line=True) or _empty(name):
        faults.append(f"name: {fault}")
    faults += _option_faults("perturbed_names", wrong)
    if faults or photo is None:
        raise _refused(faults)
    options, letter = with_answer(wrong, name.strip(), seed=photo.key)
    return Record(
        name.strip(), photo, NAME_QUESTION, letter, form="choice", options=options, topic="name"
    )


def row_texts(row: Mapping[str, Any], place: Place) -> tuple[Photo, Mapping[str, Any]]:
    """Photo and texts of a `_perturbed` row.

    Returns:
        The photo, and the row with `name`, `caption` and `paraphrased_caption` as texts and
        `perturbed_captions` and `perturbed_names` as lists of at least one text.

    Raises:
        DataError: With all faults of the row at once.
        PhotoError: If it is a photo that does not decode, and nothing else.
    """
    faults: list[str | PhotoError] = []
    photo = _photo(row, place, faults)
    faults += _text_faults(row, "name", "caption", "paraphrased_caption")
    for key in ("perturbed_captions", "perturbed_names"):
        wrong = row[key]
        if not isinstance(wrong, list) or not wrong or any(text_fault(text) for text in wrong):
            faults.append(f"{key}: expected a list of one or more texts, got {shown(wrong)}")
    if faults or photo is None:
        raise _refused(faults)
    return photo, row


def with_answer(wrong: list[str], answer: str, *, seed: str) -> tuple[tuple[str, ...], str]:
    """Options with the right one among them, and its letter.

    Args:
        wrong: Other options; if the answer is one of them, their order stays.
        answer: The right one.
        seed: Decides where the answer goes; the same seed, the same place.
    """
    options = list(wrong)
    if answer not in options:
        options.insert(random.Random(seed).randrange(len(options) + 1), answer)
    return tuple(options), LETTERS[options.index(answer)]


def _photo(row: Mapping[str, Any], place: Place, faults: list[str | PhotoError]) -> Photo | None:
    try:
        return place.photo(row["image"], "image")
    except PhotoError as error:
        faults.append(PhotoError(f"image: {error}"))
    except DataError as error:
        faults.append(f"image: {error}")
    return None


def _refused(faults: Sequence[str | PhotoError]) -> DataError:
    """All faults of a row as one, which is of its photo alone if nothing else is wrong."""
    alone = len(faults) == 1 and isinstance(faults[0], PhotoError)
    return (PhotoError if alone else DataError)("; ".join(map(str, faults)))


def _text_faults(row: Mapping[str, Any], *keys: str) -> list[str]:
    return [
        f"{key}: {fault}" for key in keys if (fault := text_fault(row[key]) or _empty(row[key]))
    ]


def _empty(text: object) -> str:
    return "" if str(text).strip() else "expected text, got nothing"


def _option_faults(key: str, options: object) -> list[str]:
    if not isinstance(options, list) or any(text_fault(option) for option in options):
        return [f"{key}: expected a list of texts, got {shown(options)}"]
    if len(options) >= len(LETTERS):
        return [f"{key}: expected fewer than {len(LETTERS)} texts, got {len(options)}"]
    return []
