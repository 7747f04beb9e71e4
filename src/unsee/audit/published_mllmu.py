"""MLLMU-Bench's own scores: its prompts, its parsing, its people as examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unsee.data.records import Record
from unsee.metrics import mllmu
from unsee.metrics.intervals import mean_interval
from unsee.metrics.sets import chance_accuracy
from unsee.replies import Replies

# Published split -> our sets that hold its questions.
_MLLMU_SETS = {
    "forget": ("forget_seen", "forget_text"),
    "test": ("forget_unseen",),
    "retain": ("retain_seen", "retain_text"),
    "celebrity": ("celebrity",),
}


@dataclass(frozen=True)
class Sheet:
    """What one published split asks.

    Attributes:
        split: Its name.
        records: Questions that are scored.
        asked: The same as they are put, aligned.
        left_out: "form of modality" -> why it is not asked.
    """

    split: str
    records: tuple[Record, ...]
    asked: tuple[Record, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class MLLMUSheets:
    """The four published splits of MLLMU-Bench.

    Attributes:
        sheets: One a split.
    """

    sheets: tuple[Sheet, ...]
    max_new_tokens: int = 50

    def scores(self, replies: Replies) -> dict[str, dict[str, Any]]:
        """Split -> "modality score" -> value, 95 % interval by person, n, and chance of choices."""
        return {sheet.split: _cells(sheet, replies) for sheet in self.sheets}

    def between(self, tables: Mapping[str, dict[str, dict[str, Any]]]) -> None:
        """Nothing is compared."""


def _cells(sheet: Sheet, replies: Replies) -> dict[str, Any]:
    samples: dict[str, list[tuple[Record, float]]] = {}
    for record, reply in zip(sheet.records, replies.answers(sheet.asked), strict=True):
        modality = "text" if record.image is None else "image"
        for name, value in mllmu.sample(record, reply).items():
            samples.setdefault(f"{modality} {name}", []).append((record, value))
    cells: dict[str, Any] = {name: {"not_scored": why} for name, why in sheet.left_out.items()}
    for name, rows in samples.items():
        found = mean_interval([v for _, v in rows], [r.subject for r, _ in rows])
        chosen = name.endswith("classification")
        cells[name] = {
            "value": found.value,
            "ci": [found.low, found.high],
            "n": found.n,
            "chance": chance_accuracy([r for r, _ in rows]) if chosen else None,
        }
    return cells


def mllmu_sheets(audit: Mapping[str, Sequence[Record]], seed: int) -> tuple[Sheet, ...]:
    """Forget, test, retain and celebrity questions, few-shot as published but for celebrities.

    Args:
        audit: Records by set.
        seed: Of the examples.
    """
    sheets = []
    for split, names in _MLLMU_SETS.items():
        records = [record for name in names for record in audit.get(name, ())]
        scored: list[Record] = []
        asked: list[Record] = []
        left_out: dict[str, str] = {}
        for with_photo in (True, False):
            here = [record for record in records if (record.image is not None) == with_photo]
            for form in mllmu.EXAMPLES:
                if not any(record.form == form for record in here):
                    continue
                try:
                    shown = [] if split == "celebrity" else mllmu.examples(here, form, seed=seed)
                except ValueError as error:
                    left_out[f"{'image' if with_photo else 'text'} {form}"] = str(error)
                    continue
                told = "".join(f"{mllmu.example(record)}\n\n" for record in shown)
                for record in mllmu.evaluated(here, form, shown):
                    scored.append(record)
                    text = told + mllmu.prompt(record)
                    asked.append(replace(record, question=text, form="open", options=(), answer=""))
        if records:
            sheets.append(Sheet(split, tuple(scored), tuple(asked), left_out))
    return tuple(sheets)
