"""The exceptions a caller may catch.

Each also derives from the builtin that fits, so code that knows nothing of this package catches it
too. A message is one line: what was expected, what was found, where, and the next step. The command
line prints it and exits with 2; anything else is our bug and keeps its traceback.
"""

from collections.abc import Sequence

FAULTS_SHOWN = 20


class UnseeError(Exception):
    """Something the user can put right.

    Args:
        faults: A line each; the message joins them by semicolons.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)

    def __str__(self) -> str:
        return "; ".join(self.args)


class ConfigError(UnseeError, ValueError):
    """A setting, a name or a path given by the user does not fit."""


class LayoutError(UnseeError, LookupError):
    """A model lacks a part where its family should have it, or its family is not known."""


class ArtifactError(UnseeError, RuntimeError):
    """A run folder is incomplete, damaged, newer than this version, or made for another model."""


class DataError(UnseeError, ValueError):
    """Photos, questions or records cannot be read or contradict one another."""


class PhotoError(DataError):
    """A photo is there but cannot be used: it does not decode, or has no size to be seen at."""


def first_faults(faults: Sequence[str], shown: int = FAULTS_SHOWN) -> tuple[str, ...]:
    """The first faults of many, and how many more there are."""
    hidden = len(faults) - shown
    return (*faults[:shown], *([f"and {hidden} more faults"] if hidden > 0 else ()))
