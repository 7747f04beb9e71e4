"""Reports on disk: checked on the way in, written atomically."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from unsee.artifacts.files import atomic_write_json
from unsee.errors import ArtifactError
from unsee.report.schema import FORMAT, Report

FILE_NAME = "report.json"


def parse(table: object, *, where: str) -> Report:
    """Check a table against the format.

    Args:
        table: Decoded JSON.
        where: File or origin, for messages.

    Raises:
        ArtifactError: If the format is newer than this version reads, or the table does not fit;
            all faults are listed.
    """
    if not isinstance(table, Mapping) or type(table.get("format")) is not int:
        raise ArtifactError(
            f"{where}: expected a report with a whole number under 'format', found none; "
            "point to a report.json written by 'unsee audit'"
        )
    if table["format"] > FORMAT:
        raise ArtifactError(
            f"{where}: expected report format {FORMAT} or older, got {table['format']}; "
            "upgrade unsee to read it"
        )
    try:
        return Report.model_validate(table)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ArtifactError(
            f"{where}: expected report format {FORMAT}, got: {faults}; "
            "run 'unsee audit' again to rewrite it"
        ) from error


def load(path: Path | str) -> Report:
    """Read a report from `report.json`, or from the run folder that holds it.

    Raises:
        ArtifactError: If there is no such file, it is not JSON, or it does not fit the format.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{file}: expected a report, found no such file; write one with 'unsee audit'"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{file}: expected JSON, got something else ({error}); "
            "run 'unsee audit' again to rewrite it"
        ) from error
    return parse(table, where=str(file))


def save(report: Report, path: Path | str) -> Path:
    """Write a report atomically and return the file.

    Args:
        report: The report.
        path: A `.json` file, or a run folder that gets `report.json`.
    """
    file = Path(path)
    if file.suffix != ".json":
        file = file / FILE_NAME
    atomic_write_json(file, report.model_dump(mode="json"))
    return file
