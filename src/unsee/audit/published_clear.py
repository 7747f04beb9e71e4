"""CLEAR's own scores: the first 300 rows of six sets, from files that only scores read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unsee.data.clear import NAME, option_records, read_options, read_perturbed, row_texts
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.errors import DataError, first_faults
from unsee.metrics import clear
from unsee.replies import Replies
from unsee.requests.benchmarks import split_files

ROWS = 300
TOKENS = 300


@dataclass(frozen=True)
class Asked:
    """One row of a set.

    Attributes:
        record: What is asked, with the right answer.
        paraphrased: The right answer in other words.
        wrong: Wrong answers.
    """

    record: Record
    paraphrased: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class ClearSheets:
    """All sets whose files are there.

    Attributes:
        sets: Rows by set.
        left_out: Set -> why it is not asked.
    """

    sets: Mapping[str, tuple[Asked, ...]]
    left_out: Mapping[str, str]
    max_new_tokens: int = TOKENS

    def scores(self, replies: Replies) -> dict[str, dict[str, Any]]:
        """Scores of one model, and its utility where all four sets to keep were asked."""
        table: dict[str, dict[str, Any]] = {}
        plain: dict[str, dict[str, float]] = {}
        for name, asked in self.sets.items():
            rows = _rows(asked, replies)
            plain[name] = clear.set_scores(name, rows)
            table[name] = {
                score: {"value": value, "n": len(rows), "chance": None}
                for score, value in plain[name].items()
            }
            # Read again by `between`, and by nobody else.
            table[name]["truth ratios"] = {"samples": [row.truth_ratio() for row in rows]}
        missing = [name for name in clear.UTILITY_SETS if name not in plain]
        table["all to keep"] = {
            "model_utility": {"not_scored": f"not asked: {', '.join(missing)}"}
            if missing
            else {"value": clear.model_utility(plain), "n": len(plain), "chance": None}
        }
        return table | {name: {"rouge": {"not_scored": why}} for name, why in self.left_out.items()}

    def between(self, tables: Mapping[str, dict[str, dict[str, Any]]]) -> None:
        """Adds the forget quality of every model beside gold, and takes the samples off again."""
        ratios = {
            model: np.array(table.get("forget", {}).pop("truth ratios", {}).get("samples", []))
            for model, table in tables.items()
        }
        for model, table in tables.items():
            for cells in table.values():
                cells.pop("truth ratios", None)
            if model != "gold" and len(ratios[model]) and len(ratios.get("gold", [])):
                table["forget"]["forget_quality"] = {
                    "value": clear.ks_p_value(ratios[model], ratios["gold"]),
                    "n": len(ratios[model]),
                    "chance": None,
                }


def clear_sheets(folder: Path, split: str) -> ClearSheets:
    """What CLEAR asks for a split of those to forget.

    Args:
        folder: Its local copy.
        split: `forget01`, `forget05` or `forget10`, also spelt `forget_5`.

    Raises:
        DataError: With the faults of all rows.
    """
    share = int(split.removeprefix("forget").removeprefix("_"))
    files = split_files(folder, NAME)
    sets: dict[str, tuple[Asked, ...]] = {}
    left_out: dict[str, str] = {}
    faults: list[str] = []
    readers = {
        "forget": (f"forget{share:02d}_perturbed", _captions),
        "forget_faces": (f"forget{share:02d}_perturbed", _faces),
        "retain": ("retain_perturbed", _captions),
        "retain_faces": ("retain_perturbed", _faces),
        "real_faces": ("real_faces", _options),
        "real_world": ("real_world", _options),
    }
    for name, (file, read) in readers.items():
        if file not in files:
            left_out[name] = f"{folder} has no {file}"
            continue
        rows = [row for path in files[file] for row in read(name, path, faults)]
        if rows:
            sets[name] = tuple(rows[:ROWS])
        else:
            left_out[name] = f"{file} has no row with a photo and wrong answers"
    if faults:
        raise DataError(*first_faults(list(dict.fromkeys(faults))))
    return ClearSheets(sets, left_out)


def _captions(name: str, path: Path, faults: list[str]) -> Iterator[Asked]:
    for photo, row in _perturbed(path, faults):
        record = Record(row["name"], photo, clear.prompt(name), row["caption"])
        yield Asked(record, row["paraphrased_caption"], tuple(row["perturbed_captions"]))


def _faces(name: str, path: Path, faults: list[str]) -> Iterator[Asked]:
    for photo, row in _perturbed(path, faults):
        record = Record(row["name"], photo, clear.prompt(name), row["name"])
        yield Asked(record, row["name"], tuple(row["perturbed_names"]))


def _perturbed(path: Path, faults: list[str]) -> Iterator[tuple[Photo, Mapping[str, Any]]]:
    for place, row in read_perturbed(path):
        try:
            yield row_texts(row, place)
        except DataError as error:
            faults.append(f"{path}: row {place.number}: {error}")


def _options(name: str, path: Path, faults: list[str]) -> Iterator[Asked]:
    for place, row in read_options(path):
        try:
            records = option_records(row, place, f"{name} row {place.number}")
        except DataError as error:
            faults.append(f"{path}: row {place.number}: {error}")
            continue
        wrong = tuple(option for option in row["options"] or [] if option != row["answer"])
        if not records or not wrong:
            continue
        asked = Record(
            records[0].subject,
            records[0].image,
            clear.prompt(name, row["question"]),
            row["answer"],
        )
        yield Asked(asked, row["answer"], wrong)


def _rows(asked: Sequence[Asked], replies: Replies) -> list[clear.Row]:
    """What a model says and thinks of the rows."""
    said = replies.answers([row.record for row in asked])

    def means(texts: Sequence[tuple[Record, str]]) -> list[float]:
        records = [Record(r.subject, r.image, r.question, text, form=r.form) for r, text in texts]
        sums, tokens = replies.logprobs(records)
        return [float(value) for value in sums / tokens]

    right = means([(row.record, row.record.answer) for row in asked])
    paraphrased = means([(row.record, row.paraphrased) for row in asked])
    wrong = iter(means([(row.record, text) for row in asked for text in row.wrong]))
    return [
        clear.Row(
            answer=row.record.answer,
            reply=reply,
            right=own,
            paraphrased=other,
            wrong=tuple(next(wrong) for _ in row.wrong),
        )
        for row, reply, own, other in zip(asked, said, right, paraphrased, strict=True)
    ]
