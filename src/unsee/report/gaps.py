"""What the scores say about one set: how much of the knowledge is left, how much is kept.

The figures are those of `unsee.metrics.summary`; here they get an interval and plain reasons.
"""

import math
from dataclasses import dataclass

from unsee.metrics import summary as figures
from unsee.report import wording
from unsee.report.schema import Cell, ModelScores, NotScored, Score, Summary


@dataclass(frozen=True)
class Gap:
    """How much of what base knew above the reference is left after erasing.

    Attributes:
        base: Score before.
        erased: Score after.
        reference: Score of gold, or the stranger floor.
        value: max(0, erased - reference) / (base - reference); 0 perfect, 1 nothing done.
        high: Upper end of the 95 % interval of the same, from the intervals of erased and
            reference taken as independent, which errs on the side of "too uncertain to say".
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


def forget_gap(base: Cell, erased: Cell, reference: Cell) -> Gap | NotScored:
    """Return what is left of the knowledge, or why that cannot be measured on this set."""
    if isinstance(base, NotScored):
        return _missing("of the model before", base)
    if isinstance(erased, NotScored):
        return _missing("of the model after", erased)
    if isinstance(reference, NotScored):
        return _missing("to compare with", reference)
    found = figures.forget_gap(base.model_dump(), erased.model_dump(), reference.model_dump())
    if isinstance(found, str):
        return NotScored(
            not_scored=f"the model knew too little before: right in {wording.percent(base.value)}, "
            f"against {wording.percent(reference.value)} for the comparison"
        )
    left = erased.value - reference.value
    spread = math.hypot(erased.ci[1] - erased.value, reference.value - reference.ci[0])
    known = base.value - reference.value
    return Gap(base, erased, reference, value=found[0], high=max(0.0, left + spread) / known)


def kept_share(base: Cell, erased: Cell) -> float | NotScored:
    """Return (erased - chance) / (base - chance) in 0..1, or why a set cannot show a loss."""
    if isinstance(base, NotScored):
        return _missing("of the model before", base)
    if isinstance(erased, NotScored):
        return _missing("of the model after", erased)
    share = figures.kept_share(base.model_dump(), erased.model_dump())
    return NotScored(not_scored=share) if isinstance(share, str) else share


def _missing(which: str, cell: NotScored) -> NotScored:
    return NotScored(not_scored=f"no score {which}: {cell.not_scored}")
