"""Who is compared on what: rows, draws and seeds, and the runs that they take."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from unsee.cells import SYSTEM_PROMPT, Cell, run_cell
from unsee.errors import ConfigError, DataError
from unsee.recipe import Recipe, component
from unsee.registry import nearest
from unsee.requests import Scope
from unsee.settings import Settings, read_toml, resolve

NONE, RETRAIN = "none", "retrain"
Progress = Callable[[str, int, int], None]


class Row(Settings):
    """One row of the table; exactly one of these.

    Attributes:
        control: `none` is the base, `retrain` the model that never knew, `system_prompt` the base
            told before every question whom it does not know.
        recipe: File with a `[method]` table, relative to this one.
        method: `name` of a method or an eraser, and its settings.
        over: Names of rows whose methods are put on top of each other, in this order.
    """

    control: Literal["none", "retrain", "system_prompt"] | None = None
    recipe: str | None = None
    method: dict[str, Any] | None = None
    over: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_of_them(self) -> "Row":
        given = [name for name in type(self).model_fields if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "expected one of control, recipe, method and over, got "
                f"{' and '.join(given) or 'none'}"
            )
        return self


class Comparison(Settings):
    """What `unsee compare` does.

    Attributes:
        model: As for `unsee forget`.
        gold: A model that never knew; a world has its own.
        subjects: People to forget, a run each: draws of a world, or people folders.
        seeds: Seed i goes with subjects i, so that no two runs share both; of one subject, any
            number of seeds.
        retain: As for `unsee forget`.
        general: As for `unsee forget`.
        strangers: As for `unsee forget`.
        scope: As for `unsee forget`.
        photos: As for `unsee forget`.
        rows: The table's rows by name.
        out: Folder of all runs.
        results: Where the table is written, without an ending.
    """

    model: str
    gold: str | None = None
    subjects: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    retain: str | None = None
    general: str | None = None
    strangers: str | None = None
    scope: Scope = "visual"
    photos: int = Field(5, ge=1, le=60)
    rows: dict[str, Row] = Field(min_length=1)
    out: str = "runs/compare"
    results: str | None = None

    @field_validator("rows")
    @classmethod
    def _can_be_picked(cls, rows: dict[str, Row]) -> dict[str, Row]:
        for name in rows:
            if "," in name:
                raise ValueError(f"expected names without a comma, which --rows parts at: {name!r}")
        return rows

    @model_validator(mode="after")
    def _pairs(self) -> "Comparison":
        if len(self.subjects) > 1 and len(self.subjects) != len(self.seeds):
            raise ValueError(
                f"expected a seed for each of {len(self.subjects)} subjects, got "
                f"{len(self.seeds)} seeds"
            )
        return self

    @property
    def draws(self) -> list[tuple[Recipe, int]]:
        """A request and a seed each."""
        people = {
            name: getattr(self, name)
            for name in ("model", "retain", "general", "strangers", "scope", "photos")
        }
        subjects = self.subjects if len(self.subjects) > 1 else self.subjects * len(self.seeds)
        return [
            (resolve(Recipe, {**people, "subject": subject}), seed)
            for subject, seed in zip(subjects, self.seeds, strict=True)
        ]


@dataclass(frozen=True)
class Lineup:
    """A comparison with its methods looked up.

    Attributes:
        comparison: What was asked for.
        methods: Row -> tables of the methods that are put on top of each other.
    """

    comparison: Comparison
    methods: Mapping[str, tuple[Mapping[str, Any], ...]]

    def cells(self, row: str) -> list[Cell]:
        """The runs of a row; none for a control that needs none."""
        control = self.comparison.rows[row].control
        if control in (NONE, RETRAIN):
            return []
        return [
            Cell(
                row,
                recipe,
                self.methods[row],
                seed,
                gold=self.comparison.gold,
                instruction=control == SYSTEM_PROMPT,
            )
            for recipe, seed in self.comparison.draws
        ]

    @property
    def references(self) -> list[Cell]:
        """A run each draw in which nothing is forgotten."""
        return [
            Cell("references", recipe, (), seed, gold=self.comparison.gold)
            for recipe, seed in self.comparison.draws
        ]

    @property
    def out(self) -> Path:
        """Folder of all runs."""
        return Path(self.comparison.out)

    def shared(self, cell: Cell) -> Path:
        """Folder for what all cells on the same request share."""
        numbers = {recipe.subject: n for n, (recipe, _) in enumerate(self.comparison.draws)}
        return self.out / f"references-{numbers[cell.recipe.subject]}"


def read_comparison(
    path: Path,
    given: Mapping[str, Any] | None = None,
    *,
    rows: Sequence[str] | None = None,
) -> Lineup:
    """The comparison in a TOML file, with all faults of its rows at once.

    Args:
        path: The file.
        given: Values that win over the file's; None where not given.
        rows: Names of the rows that are wanted; None for all.

    Raises:
        ConfigError: If a name is unknown, a value does not fit, or a recipe cannot be read.
    """
    table = read_toml(path) | {k: v for k, v in (given or {}).items() if v is not None}
    comparison = resolve(Comparison, table, where=str(path))
    faults: list[str] = []
    methods: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for name, row in comparison.rows.items():
        try:
            methods[name] = _methods(comparison, name, row, path)
        except ConfigError as error:
            faults.append(f"{path}: rows.{name}: {error}")
    unknown = [name for name in rows or () if name not in comparison.rows]
    faults += [f"{path}: unknown row {n!r}; {nearest(n, list(comparison.rows))}" for n in unknown]
    if faults:
        raise ConfigError(*faults)
    if rows is not None:
        wanted = {name: row for name, row in comparison.rows.items() if name in rows}
        comparison = comparison.model_copy(update={"rows": wanted})
    return Lineup(comparison, methods)


def _methods(
    comparison: Comparison, name: str, row: Row, path: Path
) -> tuple[Mapping[str, Any], ...]:
    if row.control is not None:
        return ()
    if row.over:
        unknown = [part for part in row.over if part not in comparison.rows]
        if unknown or name in row.over:
            raise ConfigError(
                f"over: expected names of other rows, got {', '.join(unknown or [name])}"
            )
        return tuple(
            table
            for part in row.over
            for table in _methods(comparison, part, comparison.rows[part], path)
        )
    table = row.method
    if row.recipe is not None:
        table = read_toml(path.parent / row.recipe).get("method")
        if not isinstance(table, dict):
            raise ConfigError(f"{row.recipe}: expected a [method] table, got none")
    settings = dict(table or {})
    method = settings.pop("name", None)
    if not isinstance(method, str):
        raise ConfigError(f"method.name: expected text, got {method!r}")
    found = resolve(component(method), settings, where=f"method {method}")
    return ({"name": method, **found.model_dump(mode="json")},)


def run(lineup: Lineup, *, jobs: int = 1, progress: Progress | None = None) -> dict[str, list[str]]:
    """Make every run of a comparison that is not there yet.

    Args:
        lineup: What to run.
        jobs: Processes, which share the cores.
        progress: Told the stage, runs done and runs in all.

    Returns:
        Row -> errors of the user's that ended its runs; other rows go on. Empty if all went well.

    Raises:
        DataError: If base or gold themselves cannot be asked: then no row can.
    """
    failed = _stage("base and gold", lineup, lineup.references, jobs, progress)
    if failed:
        raise DataError(next(iter(failed.values()))[0])
    cells = [cell for row in lineup.comparison.rows for cell in lineup.cells(row)]
    return _stage("runs", lineup, cells, jobs, progress)


def _stage(
    title: str, lineup: Lineup, cells: Sequence[Cell], jobs: int, progress: Progress | None
) -> dict[str, list[str]]:
    failed: dict[str, list[str]] = {}
    unique = {cell.key: cell for cell in cells}
    for done, (cell, error) in enumerate(_results(lineup, list(unique.values()), jobs), start=1):
        if error:
            failed.setdefault(cell.row, []).append(f"{cell.recipe.subject}: {error}")
        if progress is not None:
            progress(title, done, len(unique))
    return failed


def _results(lineup: Lineup, cells: Sequence[Cell], jobs: int) -> Iterable[tuple[Cell, str]]:
    if jobs == 1:
        for cell in cells:
            yield cell, run_cell(cell, lineup.out, lineup.shared(cell))
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        started = {
            pool.submit(run_cell, cell, lineup.out, lineup.shared(cell), threads): cell
            for cell in cells
        }
        try:
            for ended in as_completed(started):
                yield started[ended], ended.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
