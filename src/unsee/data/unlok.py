"""UnLOK-VQA's questions, read.

Patil et al. 2024, https://arxiv.org/abs/2505.01456; data set `vaidehi99/UnLOK-VQA`. A JSON list
with an object a question, about 500 of them:

| field | holds |
|---|---|
| `id` | number of the question |
| `src`, `pred` | question whose answer is to be deleted, and that answer |
| `loc`, `loc_ans` | neighbourhood questions on the same photo, and their answers |
| `image_id` | number of the photo in COCO |
| `rephrase` | where it is there: the question in other words |

Other fields are passed over. The photos are COCO's own files (`000000000042.jpg`,
`COCO_train2014_000000000042.jpg`, ...) in the folder of the JSON file or in one of its subfolders.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsee.data.images import Photo
from unsee.data.jsonl import parse, shown, text_fault
from unsee.data.records import Record
from unsee.errors import DataError

NAME = "UnLOK-VQA"
NEIGHBOUR = "visible:neighbourhood"
_FILE = "UnLOK-VQA.json"
_FIELDS = ("id", "src", "pred", "loc", "loc_ans", "image_id")
_PREFIX = "nq question: "
_PARTS = ("train", "val")


@dataclass(frozen=True)
class Entry:
    """A question to be forgotten, and what is asked around it.

    Attributes:
        key: Its `id`, as text.
        image: Number of its photo in COCO.
        question: What is asked.
        answer: What is to be forgotten.
        near: Other questions on the same photo, with answers to be kept.
        reworded: The question in other words, which is asked only.
    """

    key: str
    image: int
    question: str
    answer: str
    near: tuple[tuple[str, str], ...]
    reworded: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What is forgotten, in words."""
        return f"{NAME} {self.key}"

    def records(self, photo: Photo) -> list[Record]:
        """The question and, as what anyone can see, its neighbours."""
        asked = [Record(self.subject, photo, self.question, self.answer)]
        return asked + [
            Record(self.subject, photo, question, answer, topic=NEIGHBOUR)
            for question, answer in self.near
        ]

    def asked_only(self, photo: Photo) -> list[Record]:
        """The question in other words."""
        return [Record(self.subject, photo, text, self.answer) for text in self.reworded]


def read_entries(path: Path, faults: list[str]) -> list[tuple[str, Entry]]:
    """Entries with their places in the file.

    Args:
        path: The JSON file, or a folder that holds it as `UnLOK-VQA.json` or as its only one.
        faults: Gets a line for each row that cannot be used.

    Raises:
        DataError: If there is no such file, or it is no JSON list, or it lacks a field altogether.
    """
    file = _file(path)
    try:
        rows = parse(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected UTF-8 text, got {error}; copy it again") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}:{error.lineno}: expected JSON, got {error.msg}; copy it again"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: expected a JSON list of objects, got {shown(rows)}")
    there = sorted({str(key) for row in rows for key in row})
    missing = [field for field in _FIELDS if field not in there]
    if missing:
        raise DataError(
            f"{file}: expected fields {', '.join(_FIELDS)}, got {', '.join(there) or 'none'}; "
            f"missing: {', '.join(missing)}"
        )
    entries: list[tuple[str, Entry]] = []
    for number, row in enumerate(rows, start=1):
        where = f"{file}: row {number}"
        found = list(_row_faults(row))
        if found:
            faults.append(f"{where}: " + "; ".join(found))
        else:
            entries.append((where, _entry(row)))
    return entries


def photo_homes(folder: Path) -> tuple[Path, ...]:
    """Where COCO's photos may lie: the folder and its subfolders."""
    return (folder, *sorted(home for home in folder.iterdir() if home.is_dir()))


def find_photo(homes: Sequence[Path], image: int) -> Photo:
    """A photo of COCO by its number.

    Args:
        homes: Folders to look in.
        image: Its number.

    Raises:
        DataError: If it is nowhere.
        PhotoError: If it does not decode.
    """
    names = [f"{image:012d}.jpg", *(f"COCO_{part}2014_{image:012d}.jpg" for part in _PARTS)]
    for path in (home / name for home in homes for name in names):
        if path.is_file():
            photo = Photo(path=path)
            photo.open()
            return photo
    raise DataError(
        f"image_id: expected {names[0]} in {homes[0]} or one of its subfolders, got none; copy "
        "COCO's photos there"
    )


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path}: expected {_FILE} or its folder, got nothing; check the path")
    if (path / _FILE).is_file():
        return path / _FILE
    found = sorted(path.glob("*.json"))
    if len(found) != 1:
        got = ", ".join(file.name for file in found) or "none"
        raise DataError(f"{path}: expected {_FILE}, or one .json file, got {got}")
    return found[0]


def _row_faults(row: Mapping[str, Any]) -> Iterator[str]:
    key = row.get("id")
    if isinstance(key, bool) or not isinstance(key, int | str) or key == "":
        yield f"id: expected a number, got {shown(key)}"
    for field in ("src", "pred"):
        if fault := text_fault(row.get(field)):
            yield f"{field}: {fault}"
        elif not row[field].strip():
            yield f"{field}: expected text, got nothing"
    if not str(row.get("image_id", "")).isdecimal():
        yield f"image_id: expected a number, got {shown(row.get('image_id'))}"
    lists = {field: _texts(row.get(field)) for field in ("loc", "loc_ans", "rephrase")}
    for field, texts in lists.items():
        if texts is None:
            yield f"{field}: expected a list of texts, got {shown(row.get(field))}"
    questions, answers = lists["loc"], lists["loc_ans"]
    if questions is not None and answers is not None and len(questions) != len(answers):
        yield f"loc_ans: expected {len(questions)} answers, one a question, got {len(answers)}"


def _entry(row: Mapping[str, Any]) -> Entry:
    questions: Iterable[str] = _texts(row["loc"]) or ()
    answers: Iterable[str] = _texts(row["loc_ans"]) or ()
    reworded = (text.strip() for text in _texts(row.get("rephrase")) or ())
    near = (
        (question.removeprefix(_PREFIX).strip(), answer.strip())
        for question, answer in zip(questions, answers, strict=True)
    )
    return Entry(
        key=str(row["id"]),
        image=int(row["image_id"]),
        question=row["src"].strip(),
        answer=row["pred"].strip(),
        near=tuple((question, answer) for question, answer in near if question and answer),
        reworded=tuple(text for text in reworded if text),
    )


def _texts(value: object) -> list[str] | None:
    """A text, or a list of them, as a list; None is an empty one. None if it is neither."""
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or any(text_fault(text) for text in texts):
        return None
    return [str(text) for text in texts]
