"""Plots of a report as inline SVG: no script, no font file, no request."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unsee.metrics.summary import forget_sets, harmonic_mean, keep_sets
from unsee.report import wording
from unsee.report.gaps import kept_share
from unsee.report.schema import AttackScore, ModelName, NotScored, Report, Score

INK, MUTED, RULE = "#1c2126", "#59636e", "#d8dde2"
COLOURS: dict[ModelName, str] = {"base": "#7b8692", "erased": "#1d5c96", "gold": "#b8860b"}
_MARKERS: dict[ModelName, str] = {"base": "o", "erased": "o", "gold": "D"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "unsee",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
_SVG_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def gap_and_keep(report: Report) -> dict[ModelName, tuple[float, float]]:
    """Return (forget gap, keep) of each model that has both, each in 0..1.

    Base is (1, 1) and gold's gap 0 by definition. Gold's keep is the same harmonic mean that the
    summary takes for erased, over the sets gold was scored on; without questions that name the
    forgotten people, whom gold never knew.
    """
    points: dict[ModelName, tuple[float, float]] = {"base": (1.0, 1.0)}
    summary = report.summary
    if not isinstance(summary.forget_gap, NotScored) and not isinstance(summary.keep, NotScored):
        points["erased"] = (min(1.0, summary.forget_gap), min(1.0, summary.keep))
    base, gold = report.model("base"), report.model("gold")
    shares = [kept_share(base.cell(name), gold.cell(name)) for name in keep_sets("both")]
    kept = [share for share in shares if isinstance(share, float)]
    if kept:
        points["gold"] = (0.0, harmonic_mean(kept))
    return points


def gap_against_keep(report: Report) -> str:
    """Draw forgetting against keeping; the target corner is bottom right, doing nothing top right.

    Thin lines join points of equal score, the harmonic mean of keep and 1 - gap.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.3, 4.3), layout="constrained")
        axes = figure.subplots()
        _draw_scores(axes)
        axes.fill_between([0.9, 1.04], -0.04, 0.1, color="#dcebdf", linewidth=0, zorder=1)
        axes.text(
            0.87,
            0.03,
            "target: forgotten,\nall else kept",
            ha="right",
            va="center",
            fontsize=8.5,
            color="#1e6b46",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
        for name, (gap, keep) in gap_and_keep(report).items():
            axes.plot(
                keep,
                gap,
                linestyle="none",
                marker=_MARKERS[name],
                color=COLOURS[name],
                markersize=11 if name == "erased" else 9,
                markeredgecolor="white",
                label=_legend(name, report),
                clip_on=False,
                zorder=4 if name == "erased" else 3,
            )
        axes.set(
            xlim=(-0.04, 1.04),
            ylim=(-0.04, 1.04),
            xlabel="Kept of everything else  (1 = all)",
            ylabel="Left of what was to be forgotten  (0 = none)",
        )
        axes.set_aspect("equal")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", frameon=False, fontsize=8.5)
        return _svg(figure, "Forget gap against keep, for the model before, after and gold")


@dataclass(frozen=True)
class Point:
    """One of many runs in a plot.

    Attributes:
        label: Written beside it; "" for nothing.
        gap: Forget gap.
        keep: Share kept.
        chosen: Whether it stands out.
    """

    label: str
    gap: float
    keep: float
    chosen: bool = False


def many_gaps(points: Sequence[Point], title: str) -> str:
    """Draw many runs as `gap_against_keep` draws one.

    Args:
        points: Runs; a gap above 1 is drawn at 1.
        title: For those who cannot see it.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 4.8), layout="constrained")
        axes = figure.subplots()
        _draw_scores(axes)
        taken: list[float] = []
        for point in sorted(points, key=lambda point: point.gap):
            gap, colour = min(1.0, point.gap), COLOURS["erased" if point.chosen else "base"]
            axes.plot(
                point.keep,
                gap,
                linestyle="none",
                marker="o",
                color=colour,
                markersize=9 if point.chosen else 6.5,
                markeredgecolor="white",
                clip_on=False,
                zorder=4 if point.chosen else 3,
            )
            if point.label:
                # Labels stand in a column to the right, each at its point's height or the next
                # that is free.
                height = max(gap, taken[-1] + 0.036) if taken else gap
                taken.append(height)
                axes.annotate(
                    point.label,
                    (point.keep, gap),
                    (1.09, height),
                    fontsize=8,
                    color=INK if point.chosen else MUTED,
                    va="center",
                    annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "color": RULE, "linewidth": 0.7},
                )
        axes.set(
            xlim=(-0.04, 1.04),
            ylim=(-0.04, 1.04),
            xlabel="Kept of everything else  (1 = all)",
            ylabel="Left of what was to be forgotten  (0 = none)",
        )
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure, title)


def rights_by_set(report: Report) -> str:
    """Draw open questions answered right, a row a set, with 95 % intervals; "" where none is."""
    names = [
        name
        for name in wording.set_order(report)
        if any(isinstance(model.cell(name), Score) for model in report.models.values())
    ]
    if not names:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.5, 0.34 * len(names) + 0.9), layout="constrained")
        axes = figure.subplots()
        for row, name in enumerate(names):
            axes.axhline(row, color=RULE, linewidth=0.8, zorder=1)
            for cell, model in _cells(report, name):
                _draw_score(axes, row, cell, model)
        changed = sum(name in forget_sets(report.request.scope) for name in names)
        if 0 < changed < len(names):
            axes.axhline(changed - 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(names)), [wording.set_title(name) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.6))
        axes.spines[["top", "right", "left"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(
            unique.values(),
            unique.keys(),
            loc="outside upper right",
            ncols=len(unique),
            frameon=False,
            fontsize=8.5,
        )
        return _svg(figure, "Open questions answered right, by set, before, after and gold")


@dataclass(frozen=True)
class Curve:
    """What an attack brings back at growing budgets.

    Attributes:
        name: Of the attack.
        budgets: What it is given at each point, in words; the first is nothing.
        shares: Share of the questions answered at each, 0..1, by model.
    """

    name: str
    budgets: tuple[str, ...]
    shares: Mapping[ModelName, tuple[float, ...]]


def curves(report: Report) -> list[Curve]:
    """Attacks that were tried at two or more budgets that grow, such as shares that are learned."""
    found = []
    names = dict.fromkeys(name for model in report.models.values() for name in model.attacks)
    for name in names:
        cells: dict[ModelName, AttackScore] = {
            model: cell
            for model in wording.MODELS
            if isinstance(cell := report.model(model).attacks.get(name), AttackScore)
            and cell.plain is not None
        }
        budgets = list(dict.fromkeys(t for cell in cells.values() for t in cell.tries))
        sizes = [size for budget in budgets if (size := _size(budget)) is not None]
        if len(sizes) < 2 or len(sizes) < len(budgets) or sizes != sorted(set(sizes)):
            continue
        shares: dict[ModelName, tuple[float, ...]] = {
            model: (cell.plain or 0.0, *(cell.tries[budget] for budget in budgets))
            for model, cell in cells.items()
            if all(budget in cell.tries for budget in budgets)
        }
        found.append(Curve(name, ("0", *budgets), shares))
    return found


def recovered_by_budget(curves: Sequence[Curve]) -> str:
    """Draw what attacks bring back against what they are given, one small plot each."""
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(0.4 + 3.0 * columns, 0.5 + 2.3 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, curve in zip_longest(grid.flat, curves):
            if curve is None:
                axes.set_axis_off()
                continue
            for model, shares in curve.shares.items():
                axes.plot(
                    range(len(shares)),
                    shares,
                    marker=_MARKERS[model],
                    color=COLOURS[model],
                    markersize=5,
                    linewidth=1.4,
                    label=wording.MODELS[model],
                    clip_on=False,
                    zorder=4 if model == "erased" else 3,
                )
            axes.set_title(curve.name, fontsize=9, color=INK, loc="left")
            axes.set_xticks(range(len(curve.budgets)), curve.budgets, fontsize=7.5)
            axes.set_yticks([0, 0.5, 1], ["0", "50", "100 %"])
            axes.set(ylim=(-0.04, 1.04))
            axes.grid(axis="y", color=RULE, linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper right",
            ncols=len(labels),
            frameon=False,
            fontsize=8.5,
        )
        return _svg(figure, "Answers brought back against the budget of attacks, by model")


def _size(budget: str) -> float | None:
    """The number that a try's name begins with; None where it begins with none."""
    number = re.match(r"(?:B=)?(\d+(?:\.\d+)?)", budget)
    return float(number[1]) if number else None


def _draw_scores(axes: Axes) -> None:
    """Draw lines of equal score s: keep = s f / (2 f - s) with f = 1 - gap."""
    for score in (0.25, 0.5, 0.75, 0.9):
        lowest = score / (2 - score)
        forgotten = [lowest + (1 - lowest) * step / 60 for step in range(61)]
        keep = [score * f / (2 * f - score) for f in forgotten]
        axes.plot(keep, [1 - f for f in forgotten], color=RULE, linewidth=0.9, zorder=1)
        axes.annotate(
            f"{score:g}",
            (1.0, 1 - lowest),
            (3, 0),
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
            va="center",
        )


def _draw_score(axes: Axes, row: int, cell: Score, model: ModelName) -> None:
    offset = {"base": -0.17, "erased": 0.0, "gold": 0.17}[model]
    axes.plot(
        cell.ci,
        [row + offset] * 2,
        color=COLOURS[model],
        linewidth=1.6,
        alpha=0.55,
        solid_capstyle="butt",
        zorder=2,
    )
    axes.plot(
        cell.value,
        row + offset,
        linestyle="none",
        marker=_MARKERS[model],
        color=COLOURS[model],
        markersize=6.5 if model == "gold" else 7.5,
        markeredgecolor="white",
        markeredgewidth=0.7,
        label=wording.MODELS[model],
        clip_on=False,
        zorder=4 if model == "erased" else 3,
    )


def _cells(report: Report, name: str) -> Iterable[tuple[Score, ModelName]]:
    for model in wording.MODELS:
        cell = report.model(model).cell(name)
        if isinstance(cell, Score):
            yield cell, model


def _legend(name: ModelName, report: Report) -> str:
    if name == "erased" and report.method.name:
        return f"{wording.MODELS[name]}: {report.method.name}"
    return wording.MODELS[name]


def _svg(figure: Figure, title: str) -> str:
    """Return the figure as an `<svg>` element that can stand inside a page.

    Groups lose their ids, which would repeat from plot to plot; nothing refers to them.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_SVG_METADATA, transparent=True)
    svg = buffer.getvalue()
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{title}" ', svg, count=1)
