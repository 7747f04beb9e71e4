"""What Open-MMUnlearning's protocol reads beside MLLMU-Bench: wrong answers, general ability."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unsee.data.jsonl import read_lines, shown, text_fault
from unsee.data.mllmu import NAME, read_places, row_records
from unsee.data.records import Record, Split
from unsee.errors import ConfigError, DataError, first_faults
from unsee.metrics import mllmu, omm
from unsee.requests.benchmarks import split_files
from unsee.requests.mllmu import CELEBRITIES, TEST_SET

ANSWERS = "truth_answers.jsonl"
ABILITY = "general_scores.json"


@dataclass(frozen=True)
class Rivals:
    """An open question with what stands beside its answer.

    Attributes:
        asked: The question as put, with the right answer.
        paraphrase: The right answer in other words.
        wrong: Wrong answers.
    """

    asked: Record
    paraphrase: str
    wrong: tuple[str, ...]


def refuse_lacking(folder: Path, part: str, split: Split, *, gold: bool) -> None:
    """Name everything that the protocol needs and does not have.

    Args:
        folder: Local copy of the benchmark.
        part: Split of those to forget, such as `forget_10`.
        split: What the method was given, and what is asked.
        gold: Whether a model that never knew is audited too.

    Raises:
        ConfigError: If something is not there.
    """
    needed = {
        f"{TEST_SET} in {folder}": bool(split.audit.get("forget_unseen")),
        f"{CELEBRITIES} in {folder}": bool(split.audit.get("celebrity")),
        f"text-only questions in {part}": bool(split.audit.get("forget_text")),
        f"{folder / ANSWERS}, wrong answers to its open questions": (folder / ANSWERS).is_file(),
        "a model that never knew (--gold)": gold,
    }
    lacking = [name for name, there in needed.items() if not there]
    if lacking:
        raise ConfigError(
            f"--protocol omm: lacks {'; '.join(lacking)}; give them, or leave the protocol out"
        )


def known_in_text(folder: Path) -> list[Record]:
    """Text-only questions about celebrities, which our own sets leave out."""
    return [
        record
        for path in split_files(folder, NAME)[CELEBRITIES]
        for place, row in read_places(path)
        for record in row_records(row, place=place)
        if record.image is None
    ]


def rivals(path: Path, part: str, records: Sequence[Record]) -> tuple[Rivals, ...]:
    """Open questions on photos with what the file has for them.

    Args:
        path: JSON lines with `question`, `answer`, `paraphrase` and a list `wrong`.
        part: Split of those to forget, for messages.
        records: Questions about them.

    Raises:
        DataError: With the faults of the file, or if it lacks a question.
    """
    faults: list[str] = []
    told: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    for number, row in read_lines(path, faults):
        texts = {name: row.get(name) for name in ("question", "answer", "paraphrase")}
        wrong = row.get("wrong")
        found = [f"{name}: {why}" for name, text in texts.items() if (why := text_fault(text))]
        if not isinstance(wrong, list) or not wrong or any(map(text_fault, wrong)):
            found.append(f"wrong: expected a list of texts, got {shown(wrong)}")
        faults += [f"{path}:{number}: {why}" for why in found]
        if not found and isinstance(wrong, list):
            told[str(texts["question"]), str(texts["answer"])] = (
                str(texts["paraphrase"]),
                tuple(map(str, wrong)),
            )
    if faults:
        raise DataError(*first_faults(faults))
    asked = [r for r in records if r.form == "open" and r.image is not None]
    missing = [r for r in asked if (r.question, r.answer) not in told]
    if missing or not asked:
        first = f", the first {shown(missing[0].question)}" if missing else ""
        raise DataError(
            f"{path}: expected every open question on photos of {part}, with its answer; lacks "
            f"{len(missing)} of {len(asked)}{first}"
        )
    return tuple(
        Rivals(
            replace(record, question=mllmu.prompt(record)), *told[record.question, record.answer]
        )
        for record in asked
    )


def general_ability(path: Path) -> dict[str, dict[str, float]]:
    """Scores of general ability by model, 0..1; none where there is no file.

    Args:
        path: JSON with `base`, `erased` and `gold`, each with scores by name.

    Raises:
        DataError: If it holds anything else.
    """
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        shares = [(m, n, v) for m, cells in table.items() for n, v in cells.items()]
        wrong = [
            f"{m}.{n} = {shown(v)}"
            for m, n, v in shares
            if m not in ("base", "erased", "gold")
            or n not in omm.GENERAL
            or not isinstance(v, int | float)
            or not 0 <= v <= 1
        ]
    except (ValueError, AttributeError, RecursionError) as error:
        wrong = [str(error)]
        table = {}
    if wrong:
        raise DataError(
            f"{path}: expected base, erased and gold, each with shares 0..1 of "
            f"{', '.join(omm.GENERAL)}, got {wrong[0]}"
        )
    return table
