"""A benchmark's own scores beside ours: its prompts, its parsing, its rules for examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unsee.audit.published_clear import clear_sheets
from unsee.data.records import Record
from unsee.errors import ConfigError
from unsee.metrics import mllmu
from unsee.metrics.intervals import mean_interval
from unsee.metrics.sets import chance_accuracy
from unsee.registry import nearest
from unsee.replies import Replies

# "strict" is ours: one prompt for all benchmarks, a memorisation gate, intervals by person.
PROTOCOLS = ("strict", "published")
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


@runtime_checkable
class Published(Protocol):
    """What a benchmark asks and how it scores replies.

    Attributes:
        max_new_tokens: Longest answer.
    """

    @property
    def max_new_tokens(self) -> int:
        """Longest answer, in tokens."""
        ...

    def scores(self, replies: Replies) -> dict[str, dict[str, Any]]:
        """Cells of one model by split and score."""
        ...

    def between(self, tables: Mapping[str, dict[str, dict[str, Any]]]) -> None:
        """Adds to the tables of all models what one alone does not tell."""
        ...


def published_of(
    protocol: str, source: str, audit: Mapping[str, Sequence[Record]], *, seed: int
) -> Published | None:
    """What a protocol asks beside our own questions; None for "strict".

    Args:
        protocol: One of `PROTOCOLS`.
        source: Where the people come from, as in `--dataset`; "" for no benchmark.
        audit: Records by set.
        seed: Of the examples.

    Raises:
        ConfigError: If the protocol is unknown, or the benchmark has no published one here.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {protocol!r}; {nearest(protocol, list(PROTOCOLS))}")
    if protocol == "strict":
        return None
    name, _, place = source.partition(":")
    if name == "mllmu":
        return MLLMUSheets(_mllmu(audit, seed))
    if name == "clear":
        folder, _, split = place.rpartition("#")
        return clear_sheets(Path(folder).expanduser(), split)
    raise ConfigError(
        "--protocol published: expected --dataset mllmu:... or clear:..., got "
        f"{source or 'no benchmark'}; leave it out"
    )


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


def _mllmu(audit: Mapping[str, Sequence[Record]], seed: int) -> tuple[Sheet, ...]:
    """Forget, test, retain and celebrity questions, few-shot as published but for celebrities."""
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
