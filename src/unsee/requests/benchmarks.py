"""What requests from published benchmarks share: splits by name, people found in rows."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unsee.data.images import Photo
from unsee.data.people import Person
from unsee.data.records import Record
from unsee.errors import ConfigError, DataError, PhotoError, first_faults
from unsee.registry import nearest
from unsee.requests.albums import folded

_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass
class Found:
    """One person of a split.

    Attributes:
        name: As messages and reports call them.
        records: Questions about them.
    """

    name: str
    records: list[Record] = field(default_factory=list)

    def photos(self) -> tuple[Photo, ...]:
        """Photos that questions are asked on."""
        return tuple(dict.fromkeys(r.image for r in self.records if r.image is not None))


class Faults:
    """What is wrong with a benchmark's rows; of photos that do not decode, some may be let go.

    Args:
        allowed: So many rows are left out for a photo that does not decode, and no more.
    """

    def __init__(self, allowed: int) -> None:
        self.found: list[str] = []
        self.unreadable: list[str] = []
        self._allowed = allowed

    def note(self, where: str, error: DataError) -> None:
        """A row that cannot be used."""
        self.found.append(f"{where}: {error}")
        if isinstance(error, PhotoError):
            self.unreadable.append(self.found[-1])

    def settle(self) -> None:
        """Go on, if all that is left out are photos that may be.

        Raises:
            DataError: With all faults, and how to go on where photos are the only one.
        """
        photos = len(self.unreadable)
        if len(self.found) > photos:
            raise DataError(*first_faults(self.found))
        if photos > self._allowed:
            raise DataError(
                *first_faults(self.found),
                f"expected at most {self._allowed} photos that do not decode, got {photos}; "
                f"replace them, or leave their rows out with --set unreadable={photos}",
            )


def split_files(folder: Path, benchmark: str) -> dict[str, list[Path]]:
    """Files by the name of their split.

    Args:
        folder: Holds `NAME.parquet`, `NAME-00000-of-00002.parquet` ..., or `NAME/*.parquet`;
            itself or in its subfolder `data`.
        benchmark: Whose files they should be, for messages.

    Raises:
        DataError: If it is no folder.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected a folder with {benchmark}'s files, got {got}")
    found: dict[str, list[Path]] = {}
    for home in (folder, folder / "data"):
        for path in sorted(home.glob("*.parquet")):
            found.setdefault(_SHARD.sub("", path.stem), []).append(path)
        for path in sorted(home.glob("*/*.parquet")):
            if path.parent.name != "data":
                found.setdefault(path.parent.name, []).append(path)
    return found


def refuse_unknown(
    where: str, split: str, splits: Sequence[str], offered: Sequence[str], example: str
) -> None:
    """A split that is not there.

    Args:
        where: Benchmark and folder, as the user wrote them.
        split: Split the user named.
        splits: What is there.
        offered: What of it can be forgotten.
        example: A file that should be there, if nothing can.

    Raises:
        ConfigError: If the split is not offered; the message lists what is there.
    """
    if split not in offered:
        there = f"splits there: {', '.join(splits) or 'none'}"
        known = nearest(split, list(offered)) if offered else f"expected {example} and others"
        raise ConfigError(f"{where}#{split}: no such split; {known} ({there})")


def refuse_incomplete(where: str, split: str, splits: Sequence[str], needed: Sequence[str]) -> None:
    """Splits that a request needs beside the one it names.

    Raises:
        DataError: If one of `needed` is not there.
    """
    missing = [name for name in needed if name not in splits]
    if missing:
        raise DataError(
            f"{where}#{split}: expected {', '.join(missing)} beside it, got {', '.join(splits)}; "
            "copy the whole benchmark"
        )


def told_apart(found: Mapping[str, Found]) -> dict[str, str]:
    """Name by key; two people of one name are told apart by it."""
    shared = Counter(folded(one.name) for one in found.values())
    return {
        key: one.name if shared[folded(one.name)] == 1 else f"{one.name} ({key})"
        for key, one in found.items()
    }


def person(key: str, name: str, found: Found, test: Found | None = None) -> Person:
    """One person as published: what is given, and what is only asked.

    Args:
        key: As the benchmark calls them.
        name: As we do.
        found: Their questions in the split.
        test: Their questions on other photos, which no method is given.
    """
    seen = found.photos()
    unseen = () if test is None else tuple(p for p in test.photos() if p not in set(seen))
    held_out = set(unseen)
    asked = [] if test is None else [r for r in test.records if r.image in held_out]
    return Person(
        name=name,
        slug=key,
        photos=(*seen, *unseen),
        profile={"name": name},
        records=tuple(replace(record, subject=name) for record in [*found.records, *asked]),
        held_out=unseen,
    )
