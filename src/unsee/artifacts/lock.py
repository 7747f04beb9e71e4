"""One process at a time in a folder that is written to."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from unsee.artifacts.files import atomic_write_json, refuse_file
from unsee.errors import ArtifactError

# Says who holds the lock; the lock itself is the system's and ends with its process.
LOCK = ".lock"


@contextmanager
def locked(folder: Path, *, called: Path | None = None, flag: str = "--out") -> Iterator[None]:
    """The folder, made if need be, for this process alone; a killed process leaves no lock.

    Folders that were made and are still empty at the end are removed again.

    Args:
        folder: Made with mode 0700.
        called: What the user calls it, where that is another folder.
        flag: What the user gives it by.

    Raises:
        ArtifactError: If it is a file or cannot be written to, or another process works in it.
    """
    name = folder if called is None else called
    refuse_file(name)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = None
    try:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(handle, folder):
                raise BlockingIOError
            atomic_write_json(folder / LOCK, _me())
        except BlockingIOError as error:
            raise ArtifactError(
                f"{name}: {_holder(folder)}; wait for it, or give another {flag}"
            ) from error
        except OSError as error:
            raise ArtifactError(
                f"{name}: cannot be written to ({error.strerror}); give another {flag}"
            ) from error
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
    finally:
        if handle is not None:
            os.close(handle)
        for path in made:
            _remove_if_empty(path)


def _is_still(handle: int, folder: Path) -> bool:
    """Whether the folder that was opened was not moved away before the lock was had."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(folder))
    except FileNotFoundError:
        return False


def _me() -> dict[str, object]:
    since = datetime.now(UTC).astimezone().isoformat(sep=" ", timespec="seconds")
    return {"pid": os.getpid(), "since": since}


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return f"process {holder['pid']} has worked in it since {holder['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process works in it"


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
