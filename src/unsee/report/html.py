"""A report as one HTML file that needs nothing else: no script, no request, nothing to install."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from unsee.artifacts.files import atomic_write_text
from unsee.report import drift, plots, published, wording
from unsee.report.attempts import Attempt, attempts, lead
from unsee.report.reliability import ORDERED, reliability
from unsee.report.schema import AttackCell, Cell, Example, NotScored, Report
from unsee.report.verdict import limits, rung_says, steps

_MAX_NAMED_EXAMPLES = 3
_MAX_EXAMPLES = 12


@dataclass(frozen=True)
class Tile:
    """One headline figure.

    Attributes:
        label: What was measured.
        value: The figure, or that there is none.
        beside: What to compare it with.
    """

    label: str
    value: str
    beside: str


@dataclass(frozen=True)
class Entry:
    """One value of a table, ready to print.

    Attributes:
        value: The value, or that there is none.
        note: Its 95 % interval, or why there is none.
        scored: Whether there is a value.
    """

    value: str
    note: str
    scored: bool


@dataclass(frozen=True)
class Row:
    """One metric of one set.

    Attributes:
        title: What the metric measures.
        entries: Before, after, never knew.
        chance: Chance level.
        n: Number of questions.
    """

    title: str
    entries: list[Entry]
    chance: str
    n: str

    @property
    def reason(self) -> str:
        """Why nothing in the row is scored, where all models share one reason; else ""."""
        notes = {entry.note for entry in self.entries}
        if len(notes) == 1 and not any(entry.scored for entry in self.entries):
            return notes.pop()
        return ""


@dataclass(frozen=True)
class SetTable:
    """Everything measured on one set.

    Attributes:
        name: Name of the set in code and in `report.json`.
        title: What it is called here.
        asks: What it asks.
        should_be: What its answers should be after forgetting.
        left_out: Why the summary leaves it out, "" if it does not.
        rows: One a metric.
    """

    name: str
    title: str
    asks: str
    should_be: str
    left_out: str
    rows: list[Row]


@dataclass(frozen=True)
class Replies:
    """What one model says on one forget set.

    Attributes:
        set_title: What the set is called.
        model: Which model.
        entries: Right, says it does not know, gives another known person's name or fact.
    """

    set_title: str
    model: str
    entries: list[Entry]


@dataclass(frozen=True)
class Shown:
    """One example with its place in the table.

    Attributes:
        example: Question and answers.
        rows: Number of rows its photo stands for; 0 where the row above shows it.
    """

    example: Example
    rows: int


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of one set.

    Attributes:
        title: What the set is called.
        examples: Those shown, the same person and photo in a row.
        total: How many the report holds.
    """

    title: str
    examples: list[Shown]
    total: int

    @property
    def photos(self) -> bool:
        """Whether any example of the group shows its photo."""
        return any(shown.example.photo for shown in self.examples)


def render(report: Report) -> str:
    """Return the report as one self-contained HTML page."""
    names, more = wording.shown_names(report.request.subjects)
    return template("report.html.j2").render(
        report=report,
        people=wording.people(report.request.subjects),
        names=names,
        more=more,
        limits=limits(report),
        named=_of_set(report, "forget_text")[:_MAX_NAMED_EXAMPLES],
        rung_says=rung_says(report.verdict.rung, scope=report.request.scope),
        ladder=steps(report),
        rung_class=report.verdict.rung.split(" at ")[0].split(" from ")[0].replace(" ", "-"),
        tiles=_tiles(report),
        groups=_groups(report),
        photos=any(example.photo for example in report.examples),
        models=list(wording.MODELS.values()),
        gap_plot=Markup(plots.gap_against_keep(report)),
        sets_plot=Markup(plots.rights_by_set(report)),
        replies=_replies(report),
        tables=_tables(report),
        ordered=ORDERED if reliability() else "",
        summary=_summary(report),
        cost=wording.cost_lines(report),
        attacks=_attacks(report),
        drift=drift,
        drift_rows=drift.rows(report),
        budget_plot=_budget_plot(report),
        published=published,
        published_rows=published.rows(report),
        attacks_lead=lead(),
        settings=_pretty(report.method.settings),
        data=_pretty(report.data),
    )


def write(report: Report, path: Path | str) -> Path:
    """Write the page atomically and return the file."""
    atomic_write_text(Path(path), render(report))
    return Path(path)


@cache
def template(name: str) -> Template:
    """A page's template: what is put into it is text, and what is missing is an error."""
    environment = Environment(
        loader=PackageLoader("unsee.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["together"] = _together
    return environment.get_template(name)


def _together(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _tiles(report: Report) -> list[Tile]:
    other, kept = "forget_unseen", "retain_unseen"
    return [
        _tile("Still right on other photos of them", report, other, "accuracy"),
        _tile("Says it does not know them", report, other, "unknown_rate"),
        _tile("Right about other people to keep", report, kept, "accuracy"),
        Tile(
            "Score, 1 is best",
            wording.figure(report.summary.score),
            f"forget gap {wording.figure(report.summary.forget_gap)}, "
            f"keep {wording.figure(report.summary.keep)}",
        ),
    ]


def _tile(label: str, report: Report, set_name: str, metric: str) -> Tile:
    base, erased, gold = (report.model(model).cell(set_name, metric) for model in wording.MODELS)
    if isinstance(erased, NotScored):
        return Tile(label, wording.NOT_SCORED, erased.not_scored)
    beside = f"{wording.value_or_reason(base)} before"
    if not isinstance(gold, NotScored):
        beside += f", {wording.percent(gold.value)} had it never known them"
    return Tile(label, wording.percent(erased.value), beside)


def _of_set(report: Report, name: str) -> list[Example]:
    return [example for example in report.examples if example.set == name]


def _groups(report: Report) -> list[ExampleGroup]:
    names = list(dict.fromkeys(example.set for example in report.examples))
    order = [name for name in wording.SETS if name in names]
    order += [name for name in names if name not in order]
    return [
        ExampleGroup(wording.set_title(name), _shown(found[:_MAX_EXAMPLES]), len(found))
        for name in order
        if (found := _of_set(report, name))
    ]


def _shown(examples: list[Example]) -> list[Shown]:
    """Bring examples of one person and photo together, in order of first appearance."""
    together: dict[tuple[str, str | None], list[Example]] = {}
    for example in examples:
        together.setdefault((example.subject, example.photo), []).append(example)
    return [
        Shown(example, rows=0 if place else len(same))
        for same in together.values()
        for place, example in enumerate(same)
    ]


def _entry(cell: Cell | AttackCell) -> Entry:
    if isinstance(cell, NotScored):
        return Entry(wording.NOT_SCORED, cell.not_scored, scored=False)
    return Entry(wording.percent(cell.value), wording.interval(cell), scored=True)


def _tables(report: Report) -> list[SetTable]:
    tables = []
    for name in wording.set_order(report):
        rows = []
        for metric in wording.metric_order(report, name):
            cells = [report.model(model).cell(name, metric) for model in wording.MODELS]
            rows.append(
                Row(
                    title=wording.metric_title(metric),
                    entries=[_entry(cell) for cell in cells],
                    chance=wording.chance(cells),
                    n=wording.counts(cells),
                )
            )
        tables.append(
            SetTable(
                name=name,
                title=wording.set_title(name),
                asks=wording.set_asks(name),
                should_be=wording.should_be(name, scope=report.request.scope),
                left_out=report.summary.left_out.get(name, ""),
                rows=rows,
            )
        )
    return tables


def _replies(report: Report) -> list[Replies]:
    present = wording.set_order(report)
    return [
        Replies(
            wording.set_title(name),
            title,
            [
                _entry(report.model(model).cell(name, metric))
                for metric in ("accuracy", "unknown_rate", "wrong_name_rate")
            ],
        )
        for name in wording.FORGET_SETS
        if name in present
        for model, title in wording.MODELS.items()
    ]


def _summary(report: Report) -> list[tuple[str, str, str]]:
    summary = report.summary
    against = {
        "gold": "the model that never knew them",
        "strangers": "photos of strangers",
        "none": "nothing: no reference was given",
    }[summary.reference]
    return [
        ("Forget gap", wording.figure(summary.forget_gap), f"0 is best; compared with {against}"),
        (
            "Over-forgetting",
            wording.figure(summary.over_forgetting),
            "0 is best; how far answers fell below that comparison",
        ),
        ("Keep", wording.figure(summary.keep), "1 is best; harmonic mean over the sets to keep"),
        (
            "Text drop",
            wording.figure(summary.text_drop),
            "share of right answers lost when asked by name",
        ),
        ("Score", wording.figure(summary.score), "1 is best; joins forget gap and keep"),
    ]


def _attacks(report: Report) -> list[tuple[Attempt, list[Entry]]]:
    return [(row, [_entry(cell) for cell in row.cells]) for row in attempts(report)]


def _budget_plot(report: Report) -> Markup:
    found = plots.curves(report)
    return Markup(plots.recovered_by_budget(found) if found else "")


def _pretty(table: dict[str, object]) -> str:
    return json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) if table else ""
