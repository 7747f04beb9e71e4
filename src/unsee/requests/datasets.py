"""Benchmarks as requests, by name: a reader in `unsee.data`, a request here, and a line below."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unsee.errors import ConfigError, DataError
from unsee.registry import nearest
from unsee.requests.albums import Sides
from unsee.requests.benchmarks import Faults
from unsee.requests.clear import read_clear
from unsee.requests.mllmu import read_mllmu
from unsee.requests.unlok import read_unlok

DATASETS: dict[str, Callable[[Path, str, Faults], Sides]] = {
    "mllmu": read_mllmu,
    "clear": read_clear,
    "unlok": read_unlok,
}


def read_dataset(reference: str, *, unreadable: int = 0) -> Sides:
    """The people of `NAME:PATH#SPLIT`, such as `mllmu:data/MLLMU-Bench#forget_10`.

    Args:
        reference: Benchmark, folder and split.
        unreadable: So many rows may be left out, counted and listed, because their photo does not
            decode.

    Raises:
        ConfigError: If it is not written like this, or there is no such benchmark or split.
        DataError: If its files cannot be used, or nobody is left to forget.
    """
    name, colon, rest = reference.partition(":")
    path, mark, split = rest.rpartition("#")
    if not colon or not mark or not path:
        raise ConfigError(
            f"--dataset {reference}: expected NAME:PATH#SPLIT, such as "
            "mllmu:data/MLLMU-Bench#forget_10"
        )
    if name not in DATASETS:
        raise ConfigError(
            f"--dataset {reference}: unknown benchmark {name!r}; {nearest(name, list(DATASETS))}"
        )
    faults = Faults(unreadable)
    sides = DATASETS[name](Path(path).expanduser(), split, faults)
    if not sides.people["forget"]:
        raise DataError(
            f"{sides.source}: expected somebody to forget, got no row that can be used; choose "
            "another split, or copy the files again"
        )
    return replace(sides, unreadable=tuple(faults.unreadable))
