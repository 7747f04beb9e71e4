"""The five figures of a report, from the scores of base, erased and reference alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from unsee.data.records import SETS

# Memorisation gate: below, forgetting cannot be measured.
SMALLEST_KNOWLEDGE = 0.2
# A keep set whose base lies closer to chance cannot show a loss.
CHANCE_MARGIN = 0.1

Reference = Literal["gold", "strangers", "none"]
Scope = Literal["visual", "both"]
Cell = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Cell]]


def forget_sets(scope: Scope) -> tuple[str, ...]:
    """Sets that should become like the reference."""
    on_photos = ("forget_seen", "forget_unseen")
    return (*on_photos, "forget_text") if scope == "both" else on_photos


def keep_sets(scope: Scope) -> tuple[str, ...]:
    """Sets that should stay as before; with `scope = visual` also questions by name."""
    return tuple(name for name in SETS if name not in forget_sets(scope))


def forget_gap(base: Cell, erased: Cell, reference: Cell) -> tuple[float, float] | str:
    """What is left of a set's knowledge and how far forgetting overshot, or why it is unknown.

    The interval of base - reference is built from the two intervals (Zou & Donner 2008,
    https://doi.org/10.1002/sim.3095), which takes the models as independent; people answered
    well by one are answered well by the other, so this errs on the side of "not measurable".

    Returns:
        `(gap, over_forgetting)`, both >= 0: max(0, erased - reference) / (base - reference),
        0 perfect and 1 nothing done; and max(0, reference - erased) over the same.
    """
    for cell in (base, erased, reference):
        if "not_scored" in cell:
            return str(cell["not_scored"])
    known = base["value"] - reference["value"]
    lowest = known - math.hypot(
        base["value"] - base["ci"][0], reference["ci"][1] - reference["value"]
    )
    # Rounded, since 0.9 - 0.7 is a last digit away from 0.2.
    if round(known, 9) < SMALLEST_KNOWLEDGE:
        return (
            f"not measurable: base is {100 * known:.0f} points above the reference, "
            f"and {100 * SMALLEST_KNOWLEDGE:.0f} are needed"
        )
    if lowest <= 0:
        return "not measurable: the 95 % interval of base - reference includes 0"
    change = erased["value"] - reference["value"]
    return max(0.0, change) / known, max(0.0, -change) / known


def kept_share(base: Cell, erased: Cell) -> float | str:
    """clip((erased - chance) / (base - chance), 0, 1), or why a set cannot show a loss.

    Where chance is unknown it is taken as 0.
    """
    for cell in (base, erased):
        if "not_scored" in cell:
            return str(cell["not_scored"])
    chance = base.get("chance") or 0.0
    above = base["value"] - chance
    if round(above, 9) <= CHANCE_MARGIN:
        return f"base is within {100 * CHANCE_MARGIN:.0f} points of chance"
    return min(1.0, max(0.0, (erased["value"] - chance) / above))


def harmonic_mean(values: Sequence[float]) -> float:
    """Harmonic mean of values >= 0; 0 as soon as one of them is 0.

    Raises:
        ValueError: If there are no values.
    """
    if not values:
        raise ValueError("expected at least one value for a harmonic mean, got none")
    if min(values) <= 0:
        return 0.0
    return len(values) / sum(1 / value for value in values)


def summarise(
    base: Scores,
    erased: Scores,
    reference_scores: Scores,
    *,
    reference: Reference,
    scope: Scope,
) -> dict[str, Any]:
    """Summary of an audit, on open-form `accuracy`.

    Args:
        base: Scores before, as `score_sets` returns them.
        erased: Scores after.
        reference_scores: Scores of gold, or the stranger floor by forget set; empty for "none".
        reference: What the reference is.
        scope: Whether questions by name are kept ("visual") or forgotten too ("both").

    Returns:
        `reference`, `forget_gap`, `over_forgetting`, `keep`, `text_drop` and `score`, all but
        the first a number or `{"not_scored": why}`; `left_out`, set -> why; and
        `stranger_floor`, set -> cell, where strangers are the reference.
    """
    left_out: dict[str, str] = {}
    gaps: list[float] = []
    overshoots: list[float] = []
    for name in forget_sets(scope):
        found = _gap(name, base, erased, reference_scores, reference)
        if isinstance(found, str):
            left_out[name] = found
        else:
            gaps.append(found[0])
            overshoots.append(found[1])
    shares: list[float] = []
    for name in keep_sets(scope):
        share = kept_share(_cell(base, name), _cell(erased, name))
        if isinstance(share, str):
            left_out[name] = share
        else:
            shares.append(share)

    no_gap = {"not_scored": "no forget set is measurable"}
    no_keep = {"not_scored": "no keep set is measurable"}
    summary: dict[str, Any] = {
        "reference": reference,
        "forget_gap": sum(gaps) / len(gaps) if gaps else no_gap,
        "over_forgetting": sum(overshoots) / len(overshoots) if overshoots else no_gap,
        "keep": harmonic_mean(shares) if shares else no_keep,
        "text_drop": _drop(_cell(base, "forget_text"), _cell(erased, "forget_text")),
        "score": no_gap if not gaps else no_keep,
        "left_out": left_out,
    }
    if gaps and shares:
        forgotten = max(0.0, 1 - summary["forget_gap"])
        summary["score"] = harmonic_mean([forgotten, summary["keep"]])
    if reference == "strangers":
        summary["stranger_floor"] = {
            name: dict(_cell(reference_scores, name)) for name in forget_sets(scope)
        }
    return summary


def _gap(
    name: str, base: Scores, erased: Scores, reference_scores: Scores, reference: Reference
) -> tuple[float, float] | str:
    if reference == "none":
        return "there is no reference: neither a model that never knew nor strangers"
    return forget_gap(_cell(base, name), _cell(erased, name), _cell(reference_scores, name))


def _cell(scores: Scores, name: str) -> Cell:
    if name not in scores:
        return {"not_scored": "the set was not part of this audit"}
    return scores[name].get("accuracy", {"not_scored": "accuracy was not part of this audit"})


def _drop(base: Cell, erased: Cell) -> float | Cell:
    """Loss of accuracy; negative where the model became better."""
    for cell in (base, erased):
        if "not_scored" in cell:
            return dict(cell)
    return base["value"] - erased["value"]
