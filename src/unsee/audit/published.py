"""A benchmark's own scores beside ours: its prompts, its parsing, its rules for examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unsee.audit.published_clear import clear_sheets
from unsee.audit.published_mllmu import MLLMUSheets, mllmu_sheets
from unsee.audit.published_omm import omm_sheets
from unsee.data.records import Split
from unsee.errors import ConfigError
from unsee.registry import nearest
from unsee.replies import Replies

# "strict" is ours: one prompt for all benchmarks, a memorisation gate, intervals by person.
PROTOCOLS = ("strict", "published", "omm")


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
    protocol: str, source: str, split: Split, *, seed: int, gold: bool = False
) -> Published | None:
    """What a protocol asks beside our own questions; None for "strict".

    Args:
        protocol: One of `PROTOCOLS`.
        source: Where the people come from, as in `--dataset`; "" for no benchmark.
        split: What the method was given, and what is asked.
        seed: Of the examples.
        gold: Whether a model that never knew is audited too.

    Raises:
        ConfigError: If the protocol is unknown, the benchmark has no published one here, or what
            it needs is not there.
        DataError: With the faults of its files.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {protocol!r}; {nearest(protocol, list(PROTOCOLS))}")
    if protocol == "strict":
        return None
    name, _, place = source.partition(":")
    folder, _, part = place.rpartition("#")
    if protocol == "omm" and name == "mllmu":
        return omm_sheets(Path(folder).expanduser(), part, split, seed=seed, gold=gold)
    if protocol == "published" and name == "mllmu":
        return MLLMUSheets(mllmu_sheets(split.audit, seed))
    if protocol == "published" and name == "clear":
        return clear_sheets(Path(folder).expanduser(), part)
    offered = {"published": "mllmu:... or clear:...", "omm": "mllmu:..."}[protocol]
    raise ConfigError(
        f"--protocol {protocol}: expected --dataset {offered}, got "
        f"{source or 'no benchmark'}; leave it out"
    )
