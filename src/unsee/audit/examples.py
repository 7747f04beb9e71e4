"""A few questions with the answers of every model, for people to read."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence

from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.report.schema import Example, ModelName

# Of sets about the subjects each subject is shown; of the others a few people will do.
_A_SUBJECT = {"forget_seen": 2, "forget_unseen": 3, "forget_text": 2, "forget_visible": 1}
_A_SET = 4
_PHOTO_SIDE_PX = 160


def examples(
    sets: Mapping[str, Sequence[Record]],
    answers: Mapping[ModelName, Mapping[str, Sequence[str]]],
    *,
    photos: bool,
) -> list[Example]:
    """Open questions of each set, the name first, each topic of a subject once.

    Args:
        sets: Records by set.
        answers: Answers by model and set, aligned with the records.
        photos: Whether small copies of the photos go along; they are personal data.
    """
    chosen = []
    for name, records in sets.items():
        for row in _rows(name, records):
            record = records[row]
            said = {model: by_set[name][row] for model, by_set in answers.items() if name in by_set}
            chosen.append(
                Example(
                    set=name,
                    subject=record.subject,
                    question=record.question,
                    truth=record.answer,
                    photo=data_uri(record.image) if photos and record.image is not None else None,
                    base=said.get("base"),
                    erased=said.get("erased"),
                    gold=said.get("gold"),
                )
            )
    return chosen


def data_uri(photo: Photo) -> str:
    """A small copy of a photo, without its metadata, as text for HTML."""
    picture = photo.open()
    picture.thumbnail((_PHOTO_SIDE_PX, _PHOTO_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rows(name: str, records: Sequence[Record]) -> list[int]:
    by_subject: dict[str, list[int]] = {}
    order = sorted(range(len(records)), key=lambda row: records[row].topic != "name")
    for row in order:
        if records[row].form == "open":
            by_subject.setdefault(records[row].subject, []).append(row)
    limit = _A_SUBJECT.get(name)
    if limit is not None:
        return [row for rows in by_subject.values() for row in _varied(rows, records)[:limit]]
    return [rows[number % len(rows)] for number, rows in enumerate(by_subject.values())][:_A_SET]


def _varied(rows: Iterable[int], records: Sequence[Record]) -> list[int]:
    """Rows whose topic was not yet among them."""
    return list({records[row].topic: row for row in reversed(list(rows))}.values())[::-1]
