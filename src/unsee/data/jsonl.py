"""JSON lines written by hand: every fault is noted with its line, and none is fatal."""

import json
import reprlib
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unsee.data.records import FORMS
from unsee.errors import DataError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 3


def shown(value: object) -> str:
    """A value as messages show it: in quotes, and short whatever a file holds."""
    return _SHORT.repr(value)


def parse(text: str) -> Any:
    """JSON as `json.loads` reads it.

    Raises:
        json.JSONDecodeError: If it is not JSON.
        DataError: If it is JSON, but nested too deep or with numbers too long to read.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise DataError("expected flat JSON, got lists within lists; write texts") from error
    except ValueError as error:
        raise DataError(f"expected short numbers, got {error}; write texts") from error


def read_lines(path: Path, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and objects of a file; empty lines are passed over.

    Args:
        path: UTF-8 text, with or without a byte order mark.
        faults: Gets a line for each row that is no object, or one if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: expected UTF-8 text, got {error}; save it again as UTF-8")
        return
    # Not splitlines(): it also cuts at characters that JSON allows within a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse(line)
        except json.JSONDecodeError as error:
            faults.append(f"{path}:{number}: expected JSON, got {error.msg}; correct the line")
        except DataError as error:
            faults.append(f"{path}:{number}: {error}")
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                faults.append(
                    f"{path}:{number}: expected an object, got {shown(row)}; write {{...}}"
                )


def text_fault(value: object, *, one_line: bool = False) -> str:
    """What is wrong with a text, "" if nothing.

    Half a surrogate pair, which JSON can spell, cannot be written to any file; control characters
    in a name would reach the terminal.

    Args:
        value: What a file gives for a text.
        one_line: Refuse control characters, line breaks among them.
    """
    if not isinstance(value, str):
        return f"expected text, got {shown(value)}"
    kinds = {unicodedata.category(character) for character in value}
    if "Cs" in kinds:
        return f"expected Unicode text, got half a surrogate pair in {shown(value)}"
    if one_line and "Cc" in kinds:
        return f"expected text without control characters, got {shown(value)}"
    return ""


def question_faults(row: Mapping[str, Any], *, answer: bool = True) -> list[str]:
    """What is wrong with `question`, `answer`, `topic`, `form` and `options` of a row.

    Args:
        row: A row with a question.
        answer: Whether the answer must be there.
    """
    faults = []
    for key, default in (("question", None), ("answer", None if answer else ""), ("topic", "")):
        if fault := text_fault(row.get(key, default), one_line=key == "topic"):
            faults.append(f"{key}: {fault}")
    form = row.get("form", "open")
    if form not in FORMS:
        faults.append(f"form: expected one of {', '.join(FORMS)}, got {shown(form)}")
    options = row.get("options", [])
    if not isinstance(options, list) or any(text_fault(text) for text in options):
        faults.append(f"options: expected a list of texts, got {shown(options)}")
    return faults
