"""A comparison of many methods: JSON, a Markdown page, and one HTML file that needs nothing else.

Both pages are drawn from the JSON and add nothing to it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unsee.artifacts.files import atomic_write_json, atomic_write_text
from unsee.data.records import SETS
from unsee.metrics.summary import forget_sets
from unsee.report import wording
from unsee.report.html import template
from unsee.report.plots import Point, many_gaps

Content = Mapping[str, Any]
NONE = "\N{EN DASH}"
RATES = ("unknown_rate", "wrong_name_rate", "degenerate_rate")


@dataclass(frozen=True)
class Grid:
    """A table, ready to print.

    Attributes:
        title: Above it.
        about: What a reader has to know; "" for nothing.
        head: Names of the columns.
        rows: Cells, as text.
    """

    title: str
    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def write(content: Content, stem: Path) -> list[Path]:
    """Write `stem`.json, .md and .html, and return them."""
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("json", "md", "html")]
    stem.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(files[0], content)
    # Drawn from what a reader of the file gets, so that a page says nothing else.
    content = json.loads(files[0].read_text(encoding="utf-8"))
    atomic_write_text(files[1], markdown(content))
    atomic_write_text(files[2], html(content))
    return files


def markdown(content: Content) -> str:
    """The tables as Markdown."""
    blocks = [f"# {title(content)}", *lead(content)]
    for grid in grids(content):
        lines = [" | ".join(grid.head), " | ".join("---" for _ in grid.head)]
        lines += [" | ".join(cell.replace("|", "\\|") for cell in row) for row in grid.rows]
        table = "\n".join(f"| {line} |" for line in lines)
        blocks += [f"## {grid.title}", *filter(None, [grid.about]), table]
    if content["failed"]:
        blocks += ["## Rows without figures", "\n".join(f"- {line}" for line in failures(content))]
    return "\n\n".join(blocks) + "\n"


def html(content: Content) -> str:
    """The tables and the plot as one HTML file."""
    points = [
        Point(row, found["summary"]["forget_gap"], found["summary"]["keep"], chosen=_plain(found))
        for row, found in content["rows"].items()
        if all(isinstance(found["summary"][name], float) for name in ("forget_gap", "keep"))
    ]
    return template("comparison.html.j2").render(
        title=title(content),
        lead=lead(content),
        plot=Markup(many_gaps(points, "Forget gap against keep, a point a row")),
        grids=list(grids(content)),
        failures=list(failures(content)),
    )


def title(content: Content) -> str:
    """What is compared on what."""
    return f"{len(content['rows'])} ways to forget, on {content['model']['source']}"


def lead(content: Content) -> list[str]:
    """How it was made, and what the figures mean."""
    request = content["request"]
    subjects = ", ".join(request["subjects"])
    reference = {
        "gold": "a model that never knew",
        "strangers": "what is said on photos of strangers",
    }.get(content["reference"], "nothing")
    made = (
        f"Made by `{content['command']}` with unsee {content['versions']['unsee']}, torch "
        f"{content['versions']['torch']}, transformers {content['versions']['transformers']} on "
        f"{content['device']}. To forget: {subjects}, seeds "
        f"{', '.join(map(str, request['seeds']))}, a seed each; scope {request['scope']}; "
        f"compared with {reference}."
    )
    return [
        made,
        "Score is the harmonic mean of keep and 1 - forget gap, on open questions: the gap is what "
        "is left of those to be forgotten (0 as the reference, 1 nothing done), keep the harmonic "
        "mean over the other sets of what is left there above chance. Answers of all draws are "
        "pooled; intervals are 95 %, by bootstrap over people.",
    ]


def grids(content: Content) -> Iterator[Grid]:
    """The tables, in the order in which they are read."""
    yield _ranking(content)
    yield _sets(content)
    yield _rates(content)
    yield _costs(content)
    yield _settings(content)


def failures(content: Content) -> Iterator[str]:
    """Rows that have no figures, and why."""
    for row, reasons in content["failed"].items():
        for why in reasons:
            yield f"{row}: {why}"


def _ranking(content: Content) -> Grid:
    first = content["first_trained"]
    head = ["row", "kind", "score", "forget gap", "over-forgetting", "keep"]
    head += ["verdict, without attacks", "text logits kept"]
    if first is not None:
        head.append(f"score of {first} minus this one")
    rows = []
    for row in _ordered(content):
        found = content["rows"][row]
        figures = [
            _figure(found["summary"][name])
            for name in ("score", "forget_gap", "over_forgetting", "keep")
        ]
        same = found["text_logits_bit_identical"]
        kept = f"{same['value']} of {same['n']} runs" if "value" in same else NONE
        cells = [row, found["kind"], *figures, found["verdict"]["rung"], kept]
        if first is not None:
            cells.append(_difference(content["differences"].get(row)))
        rows.append(cells)
    about = [
        "A difference is paired by person and question; it is resolved where its interval excludes "
        "0. Ranked by score; what has none comes last.",
        *_controls(content),
    ]
    return Grid("Ranking", " ".join(about), head, rows)


def _controls(content: Content) -> Iterator[str]:
    """What the figures of a control mean that is no method."""
    base, gold = (_right(content[model]) for model in ("base", "gold"))
    for row, found in content["rows"].items():
        lost = [s for s in base if s not in _forgotten(content) and gold.get(s, 1) < base[s] / 2]
        if found["control"] == "retrain" and lost:
            sets = ", ".join(f"`{name}`" for name in lost)
            yield (
                f"`{row}` never knew, and cannot keep what it never had ({sets}), "
                "so that its keep says nothing."
            )
        if found["control"] == "system_prompt":
            left = [
                f"{100 * base[name]:.1f} % of `{name}`"
                for name in _forgotten(content)
                if name in base
            ]
            yield (
                f"`{row}` changes no weight: once its instruction is taken away, the answers are "
                f"base's again{''.join(f', {share}' for share in left)}."
            )


def _forgotten(content: Content) -> list[str]:
    scope = content["request"]["scope"]
    return [name for name in forget_sets(scope) if name in content["base"]]


def _right(scores: Content) -> dict[str, float]:
    """Share of the open questions answered right, of each set that has one."""
    found = {name: metrics.get("accuracy", {}) for name, metrics in scores.items()}
    return {name: cell["value"] for name, cell in found.items() if "value" in cell}


def _sets(content: Content) -> Grid:
    names = [name for name in SETS if name in content["base"]]
    forgotten = _forgotten(content)
    shown = [name for name in names if name in forgotten]
    shown += [name for name in names if name not in forgotten]
    head = ["row", *(f"`{name}`" for name in shown)]
    first = content["base"]
    counts = ["n", *(str(first[name]["accuracy"].get("n", NONE)) for name in shown)]
    chance = ["chance", *(_percent(first[name]["accuracy"].get("chance")) for name in shown)]
    rows = [counts, chance]
    for label, scores in (("base", content["base"]), ("gold", content["gold"])):
        if scores:
            rows.append([label, *(_cell(scores.get(name)) for name in shown)])
    for row in _ordered(content):
        scores = content["rows"][row]["scores"]
        rows.append([row, *(_cell(scores.get(name)) for name in shown)])
    return Grid(
        "Open questions answered right, per cent",
        "The first sets were to be forgotten, the others to be kept.",
        head,
        rows,
    )


def _rates(content: Content) -> Grid:
    sets = _forgotten(content)
    keep = [name for name in ("retain_unseen", "refusal") if name in content["base"]]
    head = ["row"]
    head += [f"`{name}` {metric.replace('_', ' ')}" for name in sets for metric in RATES]
    head += [f"`{name}` unknown rate" for name in keep]
    rows = []
    for row in _ordered(content):
        scores = content["rows"][row]["scores"]
        cells = [_cell(scores.get(name), metric) for name in sets for metric in RATES]
        cells += [_cell(scores.get(name), "unknown_rate") for name in keep]
        rows.append([row, *cells])
    about = (
        "How forgotten people are answered: with a plain I do not know, with a fact about somebody "
        "else, or with text that is none. On kept sets an unknown is an over-refusal."
    )
    return Grid("What is said instead, per cent", about, head, rows)


def _costs(content: Content) -> Grid:
    head = ["row", "time a run", "peak memory", "trained parameters", "artifact"]
    rows = []
    for row in _ordered(content):
        cost = content["rows"][row]["cost"]
        memory = cost["peak_gpu_mb"] or cost["peak_rss_mb"]
        rows.append(
            [
                row,
                NONE if cost["wall_s"] is None else wording.duration(cost["wall_s"]),
                NONE if memory is None else f"{memory:,.0f} MB",
                _count(cost["trained_parameters"]),
                _count(cost["artifact_bytes"], unit=" bytes"),
            ]
        )
    about = (
        "Of one run, on the mean; of several methods on top of each other the last one's time and "
        "memory. Runs that share a machine are slower than one alone."
    )
    return Grid("Cost", about, head, rows)


def _settings(content: Content) -> Grid:
    rows = []
    for row in _ordered(content):
        for table in content["rows"][row]["methods"]:
            settings = ", ".join(
                f"{name} {_value(value)}" for name, value in table.items() if name != "name"
            )
            rows.append([row, table["name"], settings])
    return Grid("Settings", "", ["row", "method", "settings"], rows)


def _ordered(content: Content) -> list[str]:
    """Rows by rank, those without a score last."""
    ranked = list(content["ranking"])
    return ranked + [row for row in content["rows"] if row not in ranked]


def _plain(found: Content) -> bool:
    return found["kind"] != "control"


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else NONE


def _difference(found: Content | None) -> str:
    if found is None or "value" not in found:
        return NONE
    low, high = found["ci"]
    resolved = "resolved" if found["resolved"] else "not resolved"
    return f"{found['value']:+.3f} [{low:+.3f}, {high:+.3f}], {resolved}"


def _cell(metrics: Content | None, metric: str = "accuracy") -> str:
    cell = (metrics or {}).get(metric, {})
    if "value" not in cell:
        return NONE
    low, high = (100 * end for end in cell["ci"])
    return f"{100 * cell['value']:.1f} [{low:.0f}, {high:.0f}]"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f}"


def _count(value: float | None, unit: str = "") -> str:
    return NONE if value is None else f"{value:,.0f}{unit}"


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str | list | dict | bool) else f"{value}"
