"""Frozen settings, and the only place where they are read from files and strings.

A component's hyper-parameters are the fields of a final `Settings` class, so recipe, command line,
manifest and documentation all come from one place.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from unsee.errors import ConfigError
from unsee.registry import nearest

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Hyper-parameters: never changed after they are made, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Span:
    """Between which values a setting is searched, evenly in its logarithm unless told otherwise."""

    low: float
    high: float
    log: bool = True


# Where `unsee tune` looks: a span, or the values themselves.
Space = Mapping[str, Span | tuple[Any, ...]]


# Where a text holds the question that it stands around.
QUESTION = "{question}"


def _hold_the_question(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not texts or any(QUESTION not in text for text in texts):
        raise ValueError(f"expected texts with {QUESTION} in each")
    return texts


# Texts around a question, at least one.
Framing = Annotated[tuple[str, ...], AfterValidator(_hold_the_question)]


def resolve(cls: type[S], table: Mapping[str, Any], *, where: str = "") -> S:
    """Settings of class `cls` from a table read from a file or the command line.

    Args:
        cls: The settings class.
        table: Field names and values; missing fields take their defaults.
        where: File and key of the table, put before every fault.

    Raises:
        ConfigError: With all faults of the table at once, in one line.
    """
    try:
        return cls.model_validate(dict(table))
    except ValidationError as error:
        faults = "; ".join(_fault(cls, dict(fault)) for fault in error.errors())
    raise ConfigError(f"{where}: {faults}" if where else faults)


def overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Nested tables from assignments such as `method.beta=0.2`.

    Args:
        assignments: `dotted.name=value` each; the value is TOML, and text that is not TOML is taken
            as it stands, so that `method.target=away` needs no quotes.

    Returns:
        For example `{"method": {"beta": 0.2}}`; a later assignment wins.

    Raises:
        ConfigError: If an assignment has no name or no `=`, or a name is both a value and a table.
    """
    tables: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        parts = [part.strip() for part in name.split(".")]
        if not equals or not all(parts):
            raise ConfigError(f"--set {assignment!r}: expected name=value, such as method.beta=0.2")
        table = tables
        for part in parts[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment!r}: {part!r} already has a value")
        if isinstance(table.get(parts[-1]), dict):
            raise ConfigError(f"--set {assignment!r}: {parts[-1]!r} is a table, set a name in it")
        table[parts[-1]] = _toml_value(text.strip())
    return tables


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: If the file cannot be read or is not TOML; the message has line and column.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _toml_value(text: str) -> Any:
    """A TOML value; text that is none is a bare word."""
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fault(cls: type[Settings], fault: dict[str, Any]) -> str:
    """One fault in words: the dotted name, what is wrong, and what was given."""
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place)
    if fault["type"] == "extra_forbidden":
        names = list(_table_at(cls, place[:-1]).model_fields)
        advice = nearest(place[-1], names)
        return f"{name}: unknown setting; {advice} (got {fault['input']!r})"
    if fault["type"] == "missing":
        return f"{name}: missing, give it a value"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    got = "" if fault["input"] is None else f" (got {fault['input']!r})"
    return f"{name or 'settings'}: {message}{got}"


def _table_at(cls: type[Settings], place: list[str]) -> type[BaseModel]:
    """The settings class that the names in `place` lead to; `cls` itself where they leave it."""
    table: type[BaseModel] = cls
    for part in place:
        field = table.model_fields.get(part)
        annotation = field.annotation if field is not None else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            table = cast("type[BaseModel]", annotation)
    return table
