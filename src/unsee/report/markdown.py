"""A report as Markdown."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from unsee.artifacts.files import atomic_write_text
from unsee.report import drift, published, wording
from unsee.report.attempts import attempts, lead
from unsee.report.reliability import ORDERED, reliability
from unsee.report.schema import AttackCell, Cell, NotScored, Report
from unsee.report.verdict import limits, rung_says, steps

_MAX_EXAMPLES = 8
# An underscore inside a word is plain text in every dialect that has tables.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)")
# Would turn the rest of a table's line around; names written from the right need none of them.
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def render(report: Report) -> str:
    """Return the whole report as Markdown, limits before the verdict."""
    blocks = [
        f"# Forgetting {_text(wording.people(report.request.subjects))}",
        "## What this does not show",
        _bullets(limits(report)),
        f"## Verdict: {_text(report.verdict.rung)}",
        _text(rung_says(report.verdict.rung, scope=report.request.scope)),
        _bullets(report.verdict.because),
        "Not run:\n\n" + _bullets(report.verdict.not_run),
        "## The ladder",
        _ladder(report),
        "## Figures",
        _summary(report),
        *_examples(report),
        "## Open questions answered right, by set",
        _accuracy(report),
        "## Other metrics",
        ORDERED if reliability() else "",
        _other_metrics(report),
        *_told("How far other answers moved", drift.ABOUT, drift.HEAD, drift.rows(report)),
        *_told("Scores as published", published.ABOUT, published.HEAD, published.rows(report)),
        *_attempts(report),
        "## Cost",
        _table(("what", "value"), wording.cost_lines(report)),
        "## How to reproduce",
        _reproduce(report),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def write(report: Report, path: Path | str) -> Path:
    """Write the report as Markdown and return the file."""
    atomic_write_text(Path(path), render(report))
    return Path(path)


def _ladder(report: Report) -> str:
    """The claims from the strongest down, with what each needs."""
    return _table(
        ("claim", "stands", "needs, beyond the one below", "not there yet"),
        [(s.name, s.stands, s.needs, ", ".join(s.lacks) or "-") for s in steps(report)],
    )


def _summary(report: Report) -> str:
    summary = report.summary
    lines = [
        ("score (1 best)", wording.figure(summary.score)),
        ("forget gap (0 best)", wording.figure(summary.forget_gap)),
        ("over-forgetting (0 best)", wording.figure(summary.over_forgetting)),
        ("keep (1 best)", wording.figure(summary.keep)),
        ("text drop (base - erased)", wording.figure(summary.text_drop)),
        ("compared with", summary.reference),
    ]
    lines += [(f"left out: {name}", why) for name, why in sorted(summary.left_out.items())]
    return _table(("figure", "value"), lines)


def _examples(report: Report) -> Iterable[str]:
    if not report.examples:
        return
    shown = report.examples[:_MAX_EXAMPLES]
    yield "## Answers before and after"
    yield _table(
        ("set", "about", "asked", "truth", "before", "after", "never knew"),
        [
            (e.set, e.subject, e.question, e.truth, *(a or "-" for a in (e.base, e.erased, e.gold)))
            for e in shown
        ],
    )
    if len(shown) < len(report.examples):
        yield f"{len(shown)} of {len(report.examples)} examples; all are in `report.json`."


def _accuracy(report: Report) -> str:
    head = ("set", "should be", "before", "after", "never knew", "chance", "n")
    scope = report.request.scope
    body = []
    for name in wording.set_order(report):
        cells = [report.model(model).cell(name) for model in wording.MODELS]
        body.append((name, wording.should_be(name, scope=scope), *_values(cells), *_tail(cells)))
    return _table(head, body)


def _other_metrics(report: Report) -> str:
    head = ("set", "metric", "before", "after", "never knew", "chance", "n")
    body = []
    for name in wording.set_order(report):
        for metric in wording.metric_order(report, name):
            if metric == "accuracy":
                continue
            cells = [report.model(model).cell(name, metric) for model in wording.MODELS]
            body.append((name, metric, *_values(cells), *_tail(cells)))
    return _table(head, body)


def _told(title: str, about: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A section with its table; none without rows."""
    return [f"## {title}", _text(about), _table(head, rows)] if rows else []


def _attempts(report: Report) -> Iterable[str]:
    rows = attempts(report)
    if not rows:
        return
    yield "## Attempts to bring it back"
    yield _text(lead())
    yield _table(
        ("attack", "tries", "before", "after", "never knew", "after above never knew", "power"),
        [(r.name, r.tries, *_values(r.cells), r.above, r.power) for r in rows],
    )


def _values(cells: Sequence[Cell | AttackCell]) -> list[str]:
    """Return the values; a reason that repeats is given once."""
    written = [_with_interval(cell) for cell in cells]
    return [
        wording.NOT_SCORED if isinstance(cell, NotScored) and text in written[:place] else text
        for place, (text, cell) in enumerate(zip(written, cells, strict=True))
    ]


def _with_interval(cell: Cell | AttackCell) -> str:
    if isinstance(cell, NotScored):
        return f"{wording.NOT_SCORED}: {cell.not_scored}"
    return f"{wording.percent(cell.value)} ({wording.interval(cell)})"


def _tail(cells: list[Cell]) -> tuple[str, str]:
    return wording.chance(cells), wording.counts(cells)


def _reproduce(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    settings = json.dumps(report.method.settings, sort_keys=True, ensure_ascii=False)
    fence = "`" * max(3, 1 + _longest_run(report.command + settings))
    seeds = ", ".join(str(seed) for seed in report.seeds)
    return (
        f"{fence}\n{report.command}\n{fence}\n\n"
        f"Seeds: {seeds}. Device: {_text(report.device)}. Versions: {_text(versions)}.\n\n"
        f"Settings:\n\n{fence}json\n{settings}\n{fence}"
    )


def _longest_run(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_text(sentence)}" for sentence in sentences)


def _text(value: str) -> str:
    """Escape what Markdown or a renderer that allows HTML would act on."""
    flat = " ".join(_TURNS.sub("", value).split())
    flat = _MARKUP.sub(r"\\\g<0>", flat)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
