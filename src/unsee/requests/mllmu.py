"""A request from a local copy of MLLMU-Bench: its splits as our sides and sets.

| published split | becomes |
|---|---|
| `forget_N` (5, 10, 15) | those to forget: `forget_seen`; its text-only questions `forget_text` |
| `retain_M` (M = 100 - N) | those to keep: `retain_seen`; its text-only questions `retain_text` |
| `Test_Set` | other photos of both, never given: `forget_unseen`, `retain_unseen` |
| `Retain_Set` | real people, never given: `celebrity` |

Left out: `Full_Set` and `ft_Data` (the same people again), the other `forget_*` and `retain_*`, and
the text-only questions of `Test_Set` and `Retain_Set`. `forget_visible` is asked by templates.
The benchmark has no strangers and no refusals: `--general` is to be given, `refusal` and
`bystander` are not scored. The method is given the questions of `forget_N` themselves: whole, also
where the base does not know the answer, since the benchmark fixes what is to be forgotten.

Liu et al. 2024, https://arxiv.org/abs/2410.22108. Reading the files: `unsee.data.mllmu`.
"""

import json
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from unsee.data.jsonl import text_fault
from unsee.data.mllmu import NAME, read_places, row_records
from unsee.data.people import Person
from unsee.errors import DataError
from unsee.requests.albums import SIDES, Sides, folded
from unsee.requests.benchmarks import (
    Faults,
    Found,
    person,
    refuse_incomplete,
    refuse_unknown,
    split_files,
    told_apart,
)

TEST_SET = "Test_Set"
CELEBRITIES = "Retain_Set"
_FORGET = re.compile(r"forget_(\w+)")


def read_mllmu(folder: Path, split: str, faults: Faults) -> Sides:
    """The people of a split, of its counterpart, and of the test sets where they are there.

    Args:
        folder: See `split_files`.
        split: `forget_5`, `forget_10` or `forget_15`, or another `forget_NAME` that has a
            `retain_NAME`.
        faults: Gets a line for each row that cannot be used.

    Raises:
        ConfigError: If the folder has no such split; the message lists those there are.
        DataError: If the counterpart or a column is missing, or with the faults of all rows.
    """
    where = f"mllmu:{folder}"
    splits = split_files(folder, NAME)
    offered = [name for name in splits if _FORGET.fullmatch(name)]
    refuse_unknown(where, split, list(splits), offered, "forget_5.parquet")
    counterpart = _counterpart(split)
    refuse_incomplete(where, split, list(splits), [counterpart])
    forget = _read(splits[split], faults)
    retain = _read(splits[counterpart], faults)
    test = _read(splits.get(TEST_SET, ()), faults, only={*forget, *retain})
    known = _read(splits.get(CELEBRITIES, ()), faults)
    faults.settle()
    names = told_apart({**forget, **retain})
    people: dict[str, Sequence[Person]] = dict.fromkeys(SIDES, ())
    for side, found in (("forget", forget), ("retain", retain)):
        people[side] = [person(i, names[i], one, test.get(i)) for i, one in found.items()]
    taken = {folded(name) for name in names.values()}
    people["celebrity"] = [
        person(i, one.name if one.name != i else f"celebrity {i}", one)
        for i, one in known.items()
        if folded(one.name) not in taken or one.name == i
    ]
    used = (split, counterpart, TEST_SET, CELEBRITIES)
    left_out = {name: "the request does not name it" for name in splits if name not in used}
    if len(people["celebrity"]) < len(known):
        count = len(known) - len(people["celebrity"])
        left_out[CELEBRITIES] = (
            f"{count} of {len(known)} people, who are in {split} or {counterpart}"
        )
    return Sides(
        people,
        source=f"{where}#{split}",
        whole=True,
        left_out=left_out,
        not_scored=_not_scored(splits, folder),
    )


def _counterpart(split: str) -> str:
    """The split of those to keep."""
    share = split.removeprefix("forget_")
    return f"retain_{100 - int(share) if share.isdecimal() else share}"


def _read(
    files: Sequence[Path], faults: Faults, *, only: Set[str] | None = None
) -> dict[str, Found]:
    """People by ID; with `only`, those alone, and their questions on photos alone."""
    found: dict[str, Found] = {}
    for path in files:
        for place, row in read_places(path):
            if only is not None and row.get("ID") not in only:
                continue
            try:
                records = row_records(row, place=place)
            except DataError as error:
                faults.note(f"{path}: row {place.number}", error)
                continue
            key = next((r.subject for r in records if r.subject), f"{path.stem} row {place.number}")
            found.setdefault(key, Found(_biography_name(row) or key)).records += records
    return found


def _biography_name(row: Mapping[str, Any]) -> str:
    """The name in the biography, "" if it has none."""
    try:
        name = json.loads(row["biography"])["Name"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    return "" if text_fault(name, one_line=True) else name.strip()


def _not_scored(splits: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, str]:
    why = {"refusal": "MLLMU-Bench has no requests to refuse"}
    if TEST_SET not in splits:
        missing = f"{folder} has no {TEST_SET}, and so no other photos of them"
        why |= {"forget_unseen": missing, "retain_unseen": missing}
    if CELEBRITIES not in splits:
        why["celebrity"] = f"{folder} has no {CELEBRITIES}"
    return why
