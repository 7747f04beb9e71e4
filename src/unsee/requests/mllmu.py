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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsee.data.images import Photo
from unsee.data.jsonl import text_fault
from unsee.data.mllmu import read_rows, row_records
from unsee.data.people import Person
from unsee.data.records import Record
from unsee.errors import ConfigError, DataError
from unsee.registry import nearest
from unsee.requests.albums import SIDES, Sides, folded

TEST_SET = "Test_Set"
CELEBRITIES = "Retain_Set"
_SHARD = re.compile(r"-\d+-of-\d+$")
_FORGET = re.compile(r"forget_(\w+)")


@dataclass
class _Found:
    """One person of a split."""

    name: str
    records: list[Record] = field(default_factory=list)

    def photos(self) -> tuple[Photo, ...]:
        """Photos that questions are asked on."""
        return tuple(dict.fromkeys(r.image for r in self.records if r.image is not None))


def read_mllmu(folder: Path, split: str) -> Sides:
    """The people of a split, of its counterpart, and of the test sets where they are there.

    Args:
        folder: Holds `NAME.parquet`, `NAME-00000-of-00002.parquet` ..., or `NAME/*.parquet`;
            itself or in its subfolder `data`.
        split: `forget_5`, `forget_10` or `forget_15`, or another `forget_NAME` that has a
            `retain_NAME`.

    Raises:
        ConfigError: If the folder has no such split; the message lists those there are.
        DataError: If the counterpart or a column is missing, or with all faults of all rows.
    """
    where = f"mllmu:{folder}"
    splits = _splits(folder)
    offered = [name for name in splits if _FORGET.fullmatch(name)]
    if split not in offered:
        there = f"splits there: {', '.join(splits) or 'none'}"
        known = nearest(split, offered) if offered else "expected forget_5.parquet and others"
        raise ConfigError(f"{where}#{split}: no such split; {known} ({there})")
    counterpart = _counterpart(split)
    if counterpart not in splits:
        raise DataError(
            f"{where}#{split}: expected {counterpart} beside it, got {', '.join(splits)}; "
            "copy the whole benchmark"
        )
    faults: list[str] = []
    forget = _read(splits[split], faults)
    retain = _read(splits[counterpart], faults)
    test = _read(splits.get(TEST_SET, ()), faults, only={*forget, *retain})
    known = _read(splits.get(CELEBRITIES, ()), faults)
    if faults:
        raise DataError(*faults)
    names = _names({**forget, **retain})
    people: dict[str, Sequence[Person]] = dict.fromkeys(SIDES, ())
    for side, found in (("forget", forget), ("retain", retain)):
        people[side] = [_person(i, names[i], one, test.get(i)) for i, one in found.items()]
    taken = {folded(name) for name in names.values()}
    people["celebrity"] = [
        _person(i, one.name if one.name != i else f"celebrity {i}", one, None)
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


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Files by the name of their split."""
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected a folder with MLLMU-Bench's files, got {got}")
    found: dict[str, list[Path]] = {}
    for home in (folder, folder / "data"):
        for path in sorted(home.glob("*.parquet")):
            found.setdefault(_SHARD.sub("", path.stem), []).append(path)
        for path in sorted(home.glob("*/*.parquet")):
            if path.parent.name != "data":
                found.setdefault(path.parent.name, []).append(path)
    return found


def _counterpart(split: str) -> str:
    """The split of those to keep."""
    share = split.removeprefix("forget_")
    return f"retain_{100 - int(share) if share.isdecimal() else share}"


def _read(
    files: Sequence[Path], faults: list[str], *, only: Set[str] | None = None
) -> dict[str, _Found]:
    """People by ID; with `only`, those alone, and their questions on photos alone."""
    found: dict[str, _Found] = {}
    for path in files:
        for number, row in enumerate(read_rows(path), start=1):
            if only is not None and row.get("ID") not in only:
                continue
            try:
                records = row_records(row)
                for photo in {r.image for r in records if r.image is not None}:
                    photo.open()
            except DataError as error:
                faults.append(f"{path}: row {number}: {error}")
                continue
            key = next((r.subject for r in records if r.subject), f"{path.stem} row {number}")
            found.setdefault(key, _Found(_biography_name(row) or key)).records += records
    return found


def _biography_name(row: Mapping[str, Any]) -> str:
    """The name in the biography, "" if it has none."""
    try:
        name = json.loads(row["biography"])["Name"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    return "" if text_fault(name, one_line=True) else name.strip()


def _names(found: Mapping[str, _Found]) -> dict[str, str]:
    """Name by ID; two people of one name are told apart by it."""
    shared = Counter(folded(one.name) for one in found.values())
    return {
        key: one.name if shared[folded(one.name)] == 1 else f"{one.name} ({key})"
        for key, one in found.items()
    }


def _person(key: str, name: str, found: _Found, test: _Found | None) -> Person:
    """One person with the photos of both splits."""
    seen = found.photos()
    unseen = () if test is None else tuple(p for p in test.photos() if p not in set(seen))
    asked = [*found.records, *_asked_on(unseen, test)]
    return Person(
        name=name,
        slug=key,
        photos=(*seen, *unseen),
        profile={"name": name},
        records=tuple(replace(record, subject=name) for record in asked),
        held_out=unseen,
    )


def _asked_on(photos: Sequence[Photo], found: _Found | None) -> Iterator[Record]:
    for record in () if found is None else found.records:
        if record.image in photos:
            yield record


def _not_scored(splits: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, str]:
    why = {"refusal": "MLLMU-Bench has no requests to refuse"}
    if TEST_SET not in splits:
        missing = f"{folder} has no {TEST_SET}, and so no other photos of them"
        why |= {"forget_unseen": missing, "retain_unseen": missing}
    if CELEBRITIES not in splits:
        why["celebrity"] = f"{folder} has no {CELEBRITIES}"
    return why
