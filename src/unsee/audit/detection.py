"""Cells of attacks that bring back no answer but tell what a model was trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from unsee.attacks.protocol import Detects, Signals
from unsee.metrics.membership import Told, auc, told, tpr_at_fpr
from unsee.metrics.recovery import RECOVERED_FOR_POWER

LOSS, REFERENCE = "loss", "reference"


def detection_cell(found: Signals, attack: Detects, settings: Mapping[str, Any], seed: int) -> Any:
    """The cell of one model: how well the best score tells, and each score by itself."""
    best = told(found.member, found.scores, found.subjects, seed=seed)
    return {
        "value": best.value,
        "ci": [best.low, best.high],
        "n": len(found.member),
        "group": attack.group,
        "budget": {"tries": len(found.scores), "settings": dict(settings)},
        "tries": {name: auc(found.member, values) for name, values in found.scores.items()},
        "beside": {
            "tpr_at_1%_fpr": {
                name: tpr_at_fpr(found.member, values) for name, values in found.scores.items()
            }
        },
        "measure": (
            "AUC of the score that tells best pairs that base was trained on from pairs that no "
            "model ever saw, or 1 - AUC where that is more; 50 % is chance"
        ),
    }


def with_reference(found: Signals, gold: object) -> Signals:
    """The same with one more score: its loss beside gold's on the same pair."""
    if not isinstance(gold, Signals):
        return found
    beside = found.scores[LOSS] - gold.scores[LOSS]
    return Signals(found.member, found.subjects, {**found.scores, REFERENCE: beside})


def detection_judgement(
    judged: Signals, found: Mapping[str, Signals | str], seed: int
) -> dict[str, Any]:
    """How far above gold the erased model gives itself away, and whether that could be seen."""
    values = {
        model: told(signals.member, signals.scores, signals.subjects, seed=seed)
        for model, signals in found.items()
        if isinstance(signals, Signals)
    }
    gold = values.get("gold")
    said: dict[str, Any] = {"above_gold": {"not_scored": "there is no gold model"}}
    if isinstance(why := found.get("gold"), str):
        said["above_gold"] = {"not_scored": why}
    elif gold is not None:
        mine = told(judged.member, judged.scores, judged.subjects, seed=seed)
        apart = mine.resampled - gold.resampled
        low, high = np.percentile(apart, (2.5, 97.5))
        value = mine.value - gold.value
        said["above_gold"] = {
            "value": value,
            "ci": [min(float(low), value), max(float(high), value)],
        }
    said["power"], said["power_why"] = detection_power(
        values.get("base"), gold, values.get("control")
    )
    return said


def detection_power(
    base: Told | None, gold: Told | None, control: Told | None
) -> tuple[bool | None, str]:
    """Whether training on the pairs could be seen here.

    Base was trained on them: its advantage, 2 AUC - 1, is to lie as far above gold's as an answer
    that is merely hidden is to come back, and so is that of a control that merely hides.

    Returns:
        True, False, or None where that was not tested; and why.
    """
    needed = f"{100 * RECOVERED_FOR_POWER:.0f} are needed"
    if gold is None or base is None:
        return None, "no model that never knew"
    for model, what in ((base, "the model before"), (control, "a control that merely hides")):
        if model is None:
            return None, "no control"
        ahead = 2 * (model.value - gold.value)
        if round(ahead, 9) < RECOVERED_FOR_POWER:
            return False, (
                f"of {what} it tells {100 * ahead:.0f} points more (2 AUC - 1) than of a model "
                f"that never knew, and {needed}"
            )
    return True, "it tells what the model before and a control that merely hides were trained on"
