"""A benchmark's own scores, as both views show them."""

from collections.abc import Mapping
from typing import Any

from unsee.report import wording
from unsee.report.schema import Report

HEAD = ("split", "score", "before", "after", "never knew", "chance", "n")
ABOUT = (
    "The benchmark's own prompts, parsing and scores, with examples before questions where it has "
    "them. They are no part of the summary or the verdict."
)


def rows(report: Report) -> list[tuple[str, ...]]:
    """A row a split and score; empty where no published protocol was followed."""
    models = report.data.get("published", {})
    found = []
    for split, cells in models.get("base", {}).items():
        for name, cell in cells.items():
            beside = [models.get(m, {}).get(split, {}).get(name) for m in wording.MODELS]
            chance = cell.get("chance")
            found.append(
                (
                    split,
                    name.replace("_", "-"),
                    *map(_written, beside),
                    "" if chance is None else wording.percent(chance),
                    str(cell.get("n", "")),
                )
            )
    return found


def _written(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return wording.NOT_SCORED
    if "value" not in cell:
        return f"{wording.NOT_SCORED}: {cell['not_scored']}"
    if "ci" not in cell:
        return wording.percent(cell["value"])
    low, high = (wording.percent(end).removesuffix(" %") for end in cell["ci"])
    return f"{wording.percent(cell['value'])} ({low} to {high})"
