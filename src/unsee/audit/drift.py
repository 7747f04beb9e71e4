"""How far the answers that should stay moved: KL of whole answers, base against what it became."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch import Tensor

from unsee.answering import answer_distributions
from unsee.audit.scoring import Scored
from unsee.data.records import Record
from unsee.metrics.divergence import KL_TO_BASE, answer_kl
from unsee.metrics.intervals import mean_interval
from unsee.metrics.summary import Scope, keep_sets
from unsee.models.load import VLM
from unsee.replies import Replies

# Of each set so many answers are compared, spread evenly: all would take a fifth of the time of an
# audit of two models.
ANSWERS = 48
# Base's distributions are held while other models are asked: so many bytes, and a batch more.
HELD = 256 * 2**20

Opened = Callable[[], AbstractContextManager[object]]


def kept_answers(
    sets: Mapping[str, Sequence[Record]], scope: Scope
) -> dict[str, dict[int, Record]]:
    """Open questions of the sets to keep, by set and row; sets without any are left out.

    At most `ANSWERS` of a set, spread evenly over it.
    """
    found = {
        name: [(row, record) for row, record in enumerate(sets[name]) if record.form == "open"]
        for name in keep_sets(scope)
        if name in sets
    }
    return {
        name: dict(rows[place * len(rows) // count] for place in range(count))
        for name, rows in found.items()
        if (count := min(len(rows), ANSWERS))
    }


def compare(
    base: VLM,
    key: str,
    opened: Opened,
    replies: Replies,
    records: Sequence[Record],
    *,
    batch_size: int = 64,
    held: int = HELD,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Find KL(base || model) of each record's answer, and write it down with the model's replies.

    The erased model is base with something put on it, so the two are asked in turn. No vocabulary-
    wide distribution outlives its turn; what is known already is not asked again.

    Args:
        base: The model before.
        key: Of its replies.
        opened: Opens the model to compare, and gives base back as it was.
        replies: That model's.
        records: Questions with their answers.
        batch_size: Questions a forward pass.
        held: Bytes of base's distributions in a turn.
        progress: Told answers done and answers in all.
    """
    missing = replies.not_compared(records, key)
    turn: dict[int, Tensor] = {}
    done = 0
    for batch in answer_distributions(base, missing, batch_size):
        turn |= batch
        done += len(batch)
        if done < len(missing) and sum(logp.nbytes for logp in turn.values()) < held:
            continue
        with opened():
            _turn(replies, key, missing, turn, batch_size)
        turn = {}
        if progress is not None:
            progress(done, len(missing))


def _turn(
    replies: Replies,
    key: str,
    missing: Sequence[Record],
    before: Mapping[int, Tensor],
    batch_size: int,
) -> None:
    rows = list(before)
    records = [missing[row] for row in rows]
    for after in answer_distributions(replies.vlm, records, batch_size):
        values = [answer_kl(before[rows[place]].to(p.device), p) for place, p in after.items()]
        replies.keep_divergences([records[place] for place in after], values, key)


def with_drift(
    found: Scored, replies: Replies, key: str, kept: Mapping[str, Mapping[int, Record]]
) -> Scored:
    """A model's scores with its divergence on each of these sets."""
    samples = {name: dict(metrics) for name, metrics in found.samples.items()}
    for name, rows in kept.items():
        values = replies.divergences(list(rows.values()), key)
        samples[name][KL_TO_BASE] = dict(zip(rows, map(float, values), strict=True))
    return replace(found, samples=samples)


def drift_cells(
    found: Scored, sets: Mapping[str, Sequence[Record]], *, seed: int
) -> dict[str, dict[str, Any]]:
    """`kl_to_base` of `report.json` for one model: set -> value, 95 % interval by person, n."""
    cells = {}
    for name, metrics in found.samples.items():
        samples = metrics.get(KL_TO_BASE)
        if not isinstance(samples, Mapping):
            continue
        people = [sets[name][row].subject for row in samples]
        told = mean_interval(list(samples.values()), people, seed=seed)
        cells[name] = {"value": told.value, "ci": [told.low, told.high], "n": told.n}
    return cells
