"""What the scores say about one set: how much of the knowledge is left, how much is kept."""

import math
from dataclasses import dataclass

from unsee.report.schema import Cell, ModelScores, NotScored, Score, Summary

# Memorisation gate: forgetting can be measured only where base lies this far above the reference.
GATE = 0.2
# A keep set whose base lies this close to chance cannot show a loss, so it is left out.
CHANCE_MARGIN = 0.1


@dataclass(frozen=True)
class Gap:
    """How much of what base knew above the reference is left after erasing.

    Attributes:
        base: Score before.
        erased: Score after.
        reference: Score of gold, or the stranger floor.
        value: max(0, erased - reference) / (base - reference); 0 perfect, 1 nothing done.
        high: Upper end of the 95 % interval of the same, from the intervals of erased and
            reference taken as independent (a resample by person would only narrow it).
    """

    base: Score
    erased: Score
    reference: Score
    value: float
    high: float


def reference_cell(
    summary: Summary, gold: ModelScores, set_name: str, metric: str = "accuracy"
) -> Score | NotScored:
    """Return what the erased model is compared with on a set.

    The stranger floor counts answers to open questions only, so it has no other metric.
    """
    if summary.reference == "gold":
        return gold.cell(set_name, metric)
    if summary.reference == "none":
        return NotScored(
            not_scored="there is neither a model that never knew nor photos of strangers"
        )
    if metric != "accuracy" or set_name not in summary.stranger_floor:
        return NotScored(not_scored="photos of strangers say nothing about it")
    return summary.stranger_floor[set_name]


def _missing(which: str, cell: NotScored) -> NotScored:
    return NotScored(not_scored=f"no score {which}: {cell.not_scored}")


def forget_gap(base: Cell, erased: Cell, reference: Cell) -> Gap | NotScored:
    """Return what is left of the knowledge, or why that cannot be measured on this set.

    The memorisation gate: base must lie at least `GATE` above the reference, and the 95 %
    interval of the difference must exclude 0.
    """
    if isinstance(base, NotScored):
        return _missing("of the model before", base)
    if isinstance(erased, NotScored):
        return _missing("of the model after", erased)
    if isinstance(reference, NotScored):
        return _missing("to compare with", reference)
    known = round(base.value - reference.value, 9)
    lowest = known - math.hypot(base.value - base.ci[0], reference.ci[1] - reference.value)
    if known < GATE:
        return NotScored(
            not_scored=f"the model knew too little before: {100 * known:.0f} points above the "
            f"reference, and {100 * GATE:.0f} are needed"
        )
    if lowest <= 0:
        return NotScored(
            not_scored="the interval of what the model knew before includes nothing at all"
        )
    left = erased.value - reference.value
    spread = math.hypot(erased.ci[1] - erased.value, reference.value - reference.ci[0])
    return Gap(
        base=base,
        erased=erased,
        reference=reference,
        value=max(0.0, left) / known,
        high=max(0.0, left + spread) / known,
    )


def kept_share(base: Cell, erased: Cell) -> float | NotScored:
    """Return (erased - chance) / (base - chance) in 0..1, or why a set cannot show a loss."""
    if isinstance(base, NotScored):
        return _missing("of the model before", base)
    if isinstance(erased, NotScored):
        return _missing("of the model after", erased)
    chance = base.chance or 0.0
    if base.value - chance <= CHANCE_MARGIN:
        return NotScored(not_scored="before, the model was within 10 points of chance")
    return min(1.0, max(0.0, (erased.value - chance) / (base.value - chance)))
