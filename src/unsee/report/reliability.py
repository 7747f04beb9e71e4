"""Which metrics can be trusted more than others, as measured on the built-in world.

`reliability.json` is written by `benchmarks/metrics.py` together with `docs/results/metrics.json`.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

FILE_NAME = "reliability.json"
ORDERED = (
    "The metrics that proved the most reliable on the built-in world come first "
    "(docs/results/metrics.md)."
)


@cache
def reliability() -> dict[str, float]:
    """Reliability by metric, 0..1, the highest first; empty where it was not measured."""
    return json.loads((files("unsee.report") / FILE_NAME).read_text(encoding="utf-8"))


def most_reliable_first(metrics: Sequence[str]) -> list[str]:
    """The metrics, the most reliable first; those that were not measured follow as they come."""
    place = {name: number for number, name in enumerate(reliability())}
    return sorted(metrics, key=lambda name: place.get(name, len(place)))
