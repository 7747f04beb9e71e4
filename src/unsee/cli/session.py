"""What every verb shares: one line for a mistake, progress on stderr, a quiet Hugging Face."""

import codecs
import errno
import functools
import io
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from unsee.errors import ConfigError, UnseeError

MISTAKE = 2
# What the system refuses, whoever asks: full, read-only, not ours, or too long a name.
ENVIRONMENT = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EEXIST,
        errno.EACCES,
        errno.EPERM,
        errno.EFBIG,
        errno.EIO,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EISDIR,
    }
)
INTERRUPTED = 130

Verb = TypeVar("Verb", bound=Callable[..., None])
Report = Callable[[str, int, int], None]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option(help="Seeds every draw.")]
# Whose photos a verb is about; see `unsee.recipe.Recipe`.
RequestFile = Annotated[
    str | None,
    typer.Option("--request", help="JSON lines with subject, image, role ..., for --subject."),
]
Dataset = Annotated[
    str | None, typer.Option(help="mllmu:, clear: or unlok:PATH#SPLIT, for --subject.")
]
Retain = Annotated[str | None, typer.Option(help="Photos of other people whom the model knows.")]
General = Annotated[str | None, typer.Option(help="Photos of strangers.")]
Gold = Annotated[
    str | None,
    typer.Option(help="A model that never knew.", show_default="the world's, if there is one"),
]
Strangers = Annotated[
    str | None, typer.Option(help="Photos of 20 or more other strangers, to compare with.")
]


def version_of(package: str) -> str:
    """Installed version of a package."""
    return version(package)


def verb(function: Verb) -> Verb:
    """A verb whose user's mistakes are lines on stderr and exit with 2, interrupts with 130."""

    @functools.wraps(function)
    def run(*args: Any, **given: Any) -> None:
        try:
            _refuse_undecodable(given)
            function(*args, **given)
        except UnseeError as error:
            if given.get("debug"):
                traceback.print_exc()
            faults = [" ".join(fault.split()) for fault in error.args]
            typer.echo("unsee: " + "\n       ".join(faults), err=True)
            raise typer.Exit(MISTAKE) from error
        except OSError as error:
            # A bug of ours has another number, or none, and keeps its traceback.
            if error.errno not in ENVIRONMENT:
                raise
            if given.get("debug"):
                traceback.print_exc()
            place = f"{error.filename}: " if error.filename is not None else ""
            typer.echo(
                f"unsee: {place}cannot be read or written ({error.strerror}); what is done is "
                "kept; free some space or allow it, or give another folder",
                err=True,
            )
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt as error:
            typer.echo(
                f"unsee: interrupted; what is done is kept, go on with: {command_line()}", err=True
            )
            raise typer.Exit(INTERRUPTED) from error

    return run  # pyright: ignore[reportReturnType]


def _refuse_undecodable(given: Mapping[str, Any]) -> None:
    """Neither tokenizers nor safetensors open such a path, and no report can hold such a text."""
    for name, value in given.items():
        for text in map(str, value if isinstance(value, list) else [value]):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ConfigError(
                    f"{name.strip('_')}: expected UTF-8, got {text!r}; rename it, or set a UTF-8 "
                    "locale such as LC_ALL=C.UTF-8"
                ) from error


def command_line() -> str:
    """The command as it was typed, without the path of the program."""
    # Python keeps bytes that the locale cannot decode as half surrogate pairs, which no file takes.
    words = (
        word.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for word in sys.argv
    )
    return shlex.join(["unsee", *list(words)[1:]])


def print_anything() -> None:
    """Have stdout and stderr escape what the terminal's encoding lacks, such as a name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hush() -> None:
    """Silence the chatter of the libraries below; our own errors and warnings are untouched.

    Loading bars, advice on faster image processors and dumps of generation settings say nothing
    that a user of this command could act on.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def progress(*, quiet: bool) -> Iterator[Report | None]:
    """Bars with the time left on stderr, one a stage; None where nothing is to be shown."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def print_json(table: Mapping[str, Any]) -> None:
    """A result for machines, on stdout; with escapes where that takes ASCII only."""
    unicode = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    typer.echo(json.dumps(table, ensure_ascii=not unicode, indent=1, allow_nan=False))
