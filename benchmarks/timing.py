"""Times that are compared: taken in turns, so that whatever else runs meets all alike."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Seconds = Mapping[str, float]


def in_turns(
    runs: Mapping[str, Callable[[], Seconds]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each run's parts, one a round; who comes first changes from round to round."""
    names = list(runs)
    for run in runs.values():
        run()
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            for part, seconds in runs[name]().items():
                found[name].setdefault(part, []).append(seconds)
    return found


def ratio(times: Sequence[float], base: Sequence[float]) -> dict[str, object]:
    """Median of the rounds' ratios, and its 95 % interval, bootstrap by round."""
    each = np.array(times) / np.array(base)
    rng = np.random.default_rng(0)
    drawn = np.median(each[rng.integers(0, len(each), (2000, len(each)))], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": float(np.median(each)), "ci": [float(low), float(high)]}
