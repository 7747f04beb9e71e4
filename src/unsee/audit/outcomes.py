"""What one model gave away under one attack."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unsee.attacks.protocol import Reading, Signals
from unsee.metrics import recovery

NO_GOLD = "there is no gold model"
NOTHING_LACKED = "a model that never knew lacks nothing that base has"


@dataclass(frozen=True)
class Outcome:
    """What one model gave away under one attack.

    Attributes:
        plain: 1 where the answer came without the attack, else 0, (record,).
        tries: The same under each try by its name; NaN where it could not ask, (record,).
        beside: What was told beside it, by try.
        readings: Tries of which success is known beside gold alone; see `beside_gold`.
        measure: What success is, where it is not that an answer came.
    """

    plain: NDArray[np.float64]
    tries: Mapping[str, NDArray[np.float64]]
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    measure: str = ""

    @property
    def success(self) -> NDArray[np.float64]:
        """Whether any try brought the answer; NaN where none could ask, (record,)."""
        return recovery.at_budget(np.stack(list(self.tries.values())))

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Records that some try could ask."""
        return ~np.isnan(self.success)

    @property
    def before_and_under(self) -> tuple[float, float]:
        """Shares of the records asked that came without and under the attack."""
        return float(self.plain[self.asked].mean()), float(self.success[self.asked].mean())


# What one model gave away under one attack, or why that was not tried.
Found = Outcome | Signals | str


def outcome_of(plain: NDArray[np.float64], readings: Mapping[str, Reading]) -> Outcome:
    """What readings of an attack's tries come to together."""
    return Outcome(
        plain,
        {name: reading.success for name, reading in readings.items()},
        {name: reading.beside for name, reading in readings.items() if reading.beside},
        {name: reading for name, reading in readings.items() if reading.beside_gold is not None},
        next((reading.measure for reading in readings.values() if reading.measure), ""),
    )


def beside_gold(outcome: Found, gold: Found) -> Found:
    """An outcome with the successes that only gold's reading tells; why there are none."""
    if not isinstance(outcome, Outcome) or not outcome.readings:
        return outcome
    if not isinstance(gold, Outcome):
        return gold if isinstance(gold, str) else NO_GOLD
    readings = {}
    for name, own in outcome.readings.items():
        if own.beside_gold is not None:
            success, beside = own.beside_gold(own.content, gold.readings[name].content)
            readings[name] = Reading(success, beside, measure=own.measure)
    judged = outcome_of(outcome.plain, readings)
    return judged if judged.asked.any() else NOTHING_LACKED
