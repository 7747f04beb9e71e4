"""A request from a local copy of CLEAR: its splits as our sides and sets.

| published split | becomes |
|---|---|
| `forgetNN` (01, 05, 10) | those to forget: `forget_seen`, by caption and by name |
| `forgetNN+tofu` | its text-only questions: `forget_text` |
| `retainMM` (M = 100 - N) | those to keep: `retain_seen` |
| `retainMM+tofu` | its text-only questions: `retain_text` |
| `real_faces` | real people, never given: `celebrity` |
| `real_world` | general questions, never given: `general` |

Left out: the captions of the `+tofu` splits, which are those of the others again, the `_perturbed`
splits (the same photos with wrong answers, for the published scores), the `full` ones and the other
`forget` and `retain` splits. There are no other photos of the same people: `forget_unseen` and
`retain_unseen` are not scored. `real_world` is only asked; `--general` is still to be given.

`+tofu` does not say whom a question is about. It is taken to be about the one whom question or
answer names, and where they name nobody, about the same person as the question before.

Dontsov et al. 2024, https://arxiv.org/abs/2410.18057. Reading the files: `unsee.data.clear`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unsee.data.clear import (
    NAME,
    option_records,
    photo_records,
    question_and_answer,
    read_options,
    read_photos,
    read_questions,
)
from unsee.data.people import Person
from unsee.data.records import Record
from unsee.errors import DataError
from unsee.metrics.answers import normalise
from unsee.requests.albums import SIDES, Sides
from unsee.requests.benchmarks import (
    Faults,
    Found,
    person,
    refuse_incomplete,
    refuse_unknown,
    split_files,
)

FACES = "real_faces"
WORLD = "real_world"
_FORGET = re.compile(r"forget\d\d")
_SPELT = re.compile(r"forget_?(\d{1,2})")
_NO_OTHER_PHOTOS = "CLEAR has no other photos of them"


def read_clear(folder: Path, split: str, faults: Faults) -> Sides:
    """The people of a split, of its counterpart, and the real ones where they are there.

    Args:
        folder: See `split_files`.
        split: `forget01`, `forget05` or `forget10`; `forget_5` means `forget05`.
        faults: Gets a line for each row that cannot be used.

    Raises:
        ConfigError: If the folder has no such split; the message lists those there are.
        DataError: If the counterpart or a column is missing, or with the faults of all rows.
    """
    where = f"clear:{folder}"
    splits = split_files(folder, NAME)
    if spelt := _SPELT.fullmatch(split):
        split = f"forget{int(spelt.group(1)):02d}"
    offered = [name for name in splits if _FORGET.fullmatch(name)]
    refuse_unknown(where, split, list(splits), offered, "forget05/*.parquet")
    counterpart = f"retain{100 - int(split.removeprefix('forget')):02d}"
    refuse_incomplete(where, split, list(splits), [counterpart])
    left_out: dict[str, str] = {}
    people: dict[str, Sequence[Person]] = dict.fromkeys(SIDES, ())
    for side, name in (("forget", split), ("retain", counterpart)):
        found = _read_people(splits[name], faults, named=side == "forget")
        asked = _read_text(splits.get(f"{name}+tofu", ()), faults)
        if nobody := _add_text(found, asked):
            left_out[f"{name}+tofu"] = f"{nobody} questions, which name nobody of {name}"
        people[side] = [person(key, one.name, one) for key, one in found.items()]
    faces = _read_options(splits.get(FACES, ()), faults, left_out, by_answer=True)
    people["celebrity"] = [person(key, one.name, one) for key, one in faces.items()]
    world = _read_options(splits.get(WORLD, ()), faults, left_out, by_answer=False)
    # Held out, all of them: the benchmark asks them and teaches none.
    people["general"] = [
        replace(person(key, one.name, one), held_out=one.photos()) for key, one in world.items()
    ]
    faults.settle()
    used = {split, counterpart, f"{split}+tofu", f"{counterpart}+tofu", FACES, WORLD}
    left_out |= {name: "the request does not name it" for name in splits if name not in used}
    return Sides(
        people,
        source=f"{where}#{split}",
        whole=True,
        left_out=left_out,
        not_scored=_not_scored(splits, split, counterpart, folder),
    )


def _read_people(files: Iterable[Path], faults: Faults, *, named: bool) -> dict[str, Found]:
    """People by name; a photo without one is nobody's but its own."""
    found: dict[str, Found] = {}
    for path in files:
        for place, row in read_photos(path, named=named):
            alone = f"{path.parent.name}/{path.stem} row {place.number}"
            try:
                records = photo_records(row, place, alone)
            except DataError as error:
                faults.note(f"{path}: row {place.number}", error)
                continue
            name = records[0].subject
            found.setdefault(name, Found(name)).records += records
    return found


def _read_text(files: Iterable[Path], faults: Faults) -> list[tuple[str, str]]:
    """Text-only questions and answers, in their order."""
    texts = []
    for path in files:
        for place, row in read_questions(path):
            try:
                texts.append(question_and_answer(row))
            except DataError as error:
                faults.note(f"{path}: row {place.number}", error)
    return texts


def _add_text(found: Mapping[str, Found], asked: Sequence[tuple[str, str]]) -> int:
    """Gives each question to whom it is about; returns how many are about nobody there."""
    names = {f" {normalise(name)} ": name for name in found}
    about = []
    for question, answer in asked:
        text = f" {normalise(f'{question} {answer}')} "
        about.append(next((name for key, name in names.items() if key in text), ""))
    last = next(filter(None, about), "")
    if not last:
        return len(asked)
    for (question, answer), name in zip(asked, about, strict=True):
        last = name or last
        found[last].records.append(Record(last, None, question, answer))
    return 0


def _read_options(
    files: Iterable[Path], faults: Faults, left_out: dict[str, str], *, by_answer: bool
) -> dict[str, Found]:
    """Questions with options by the person who is the answer, or each on its own."""
    found: dict[str, Found] = {}
    for path in files:
        split = path.stem if path.parent.name == "data" else path.parent.name
        bare = rows = 0
        for place, row in read_options(path):
            rows += 1
            name = row["answer"] if by_answer and row["answer"] else f"{split} row {place.number}"
            try:
                records = option_records(row, place, str(name))
            except DataError as error:
                faults.note(f"{path}: row {place.number}", error)
                continue
            if records:
                found.setdefault(str(name), Found(str(name))).records += records
            bare += not records
        if bare:
            left_out[split] = f"{bare} of {rows} rows of {path.name}, which have no photo"
    return found


def _not_scored(
    splits: Mapping[str, Sequence[Path]], split: str, counterpart: str, folder: Path
) -> dict[str, str]:
    why = {
        "refusal": "CLEAR has no requests to refuse",
        "forget_unseen": _NO_OTHER_PHOTOS,
        "retain_unseen": _NO_OTHER_PHOTOS,
    }
    needed = {
        "forget_text": f"{split}+tofu",
        "retain_text": f"{counterpart}+tofu",
        "celebrity": FACES,
    }
    return why | {
        set_: f"{folder} has no {name}" for set_, name in needed.items() if name not in splits
    }
