"""Some questions of an audit asked again, to see that the models answer as its evidence says."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from unsee.artifacts import versions
from unsee.artifacts.canary import TOLERANCE
from unsee.audit.evidence import on_strangers
from unsee.audit.verifying import Check
from unsee.data.records import Record
from unsee.metrics.probability import answer_probability
from unsee.metrics.sets import PROBABILITY_FORMS, sample_sets
from unsee.models.load import VLM
from unsee.replies import Progress, Replies, dtype_name
from unsee.report.evidence import (
    STRANGERS,
    Evidence,
    Figure,
    Questions,
    Replied,
    Run,
    figure_name,
    reply_digest,
    sample_digest,
)
from unsee.requests import Request

Rows = Mapping[str, Sequence[int]]
# Opens a model as the audit asked it, and closes it again.
Opened = Callable[[], AbstractContextManager[VLM]]
_EXACT = 1e-9


def check_questions(found: Evidence, request: Request) -> tuple[list[Check], dict[str, int]]:
    """Whether a request asks what the audit asked.

    Returns:
        The checks, and the number of questions of each set that is the same.
    """
    asked = _asked(request)
    salt = found.of(Run)[0].salt
    checks: list[Check] = []
    same: dict[str, int] = {}
    for wanted in found.of(Questions):
        got = [sample_digest(salt, record) for record in asked.get(wanted.set, ())]
        missing = (Counter(wanted.samples) - Counter(got)).total()
        if got == wanted.samples:
            same[wanted.set] = len(got)
            continue
        said = f"{wanted.set}: {missing} of {len(wanted.samples)} are not asked now"
        if not missing:
            said = f"{wanted.set}: {len(wanted.samples)} then, now {len(got)} or in another order"
        said += "; photos, questions or right answers are other ones"
        checks.append(Check("questions", "failed", said))
    if not checks:
        said = f"the same {sum(same.values())} in {len(same)} sets"
        checks.append(Check("questions", "ok", said))
    return checks, same


def drawn(sizes: Mapping[str, int], samples: int, seed: int) -> dict[str, list[int]]:
    """Rows of each set: one of every set in turn until there are enough, or none is left."""
    rng = random.Random(seed)
    left = {name: rng.sample(range(size), size) for name, size in sizes.items()}
    order = rng.sample(sorted(left), len(left))
    chosen: dict[str, list[int]] = {name: [] for name in order}
    count = min(samples, sum(sizes.values()))
    while count:
        for name in order:
            if left[name] and count:
                chosen[name].append(left[name].pop())
                count -= 1
    return {name: sorted(rows) for name, rows in chosen.items() if rows}


def ask_again(
    found: Evidence,
    request: Request,
    models: Mapping[str, Opened],
    rows: Rows,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[Check]:
    """Ask models some questions and compare replies and scores with the evidence.

    Args:
        found: The evidence.
        request: As the audit asked it.
        models: By "base", "erased" and "gold".
        rows: Questions by set.
        batch_size: Questions a forward pass.
        progress: Told stage, questions done and questions in all.
    """
    checks = []
    for name, opened in models.items():
        with opened() as vlm:
            replies = Replies(vlm, name=name, path=None, batch_size=batch_size, progress=progress)
            compared = _compare(found, request, name, replies, rows, _tolerance(vlm))
            checks.append(compared.check(name, _elsewhere(found, vlm)))
    return checks


@dataclass
class _Compared:
    """Replies and scores that were compared, and those that are other ones, by set."""

    answers: int = 0
    scores: int = 0
    other_answers: Counter[str] = field(default_factory=Counter)
    other_scores: Counter[str] = field(default_factory=Counter)

    def check(self, name: str, elsewhere: str) -> Check:
        what = f"{name} asked again"
        if not self.answers:
            return Check(what, "not checked", "it was not asked any of these questions")
        wrong = []
        if self.other_answers.total():
            wrong.append(f"{_counted(self.other_answers)} of {self.answers} answers are other ones")
        if self.other_scores.total():
            wrong.append(f"{_counted(self.other_scores)} of {self.scores} scores are other ones")
        if not wrong:
            said = f"{self.answers} questions: the same answers, and {self.scores} scores the same"
            return Check(what, "ok", said)
        return Check(what, "failed", "; ".join([*wrong, *([elsewhere] if elsewhere else [])]))


def _compare(
    found: Evidence, request: Request, model: str, replies: Replies, rows: Rows, tolerance: float
) -> _Compared:
    salt = found.of(Run)[0].salt
    asked = _asked(request)
    told = {entry.set: entry.replies for entry in found.of(Replied) if entry.model == model}
    figures = {figure.name: figure for figure in found.of(Figure)}
    chosen = {
        name: [asked[name][row] for row in places] for name, places in rows.items() if name in told
    }
    # All at once, so that batches are full.
    replies.answers([record for records in chosen.values() for record in records])
    answers = {name: replies.answers(records) for name, records in chosen.items()}
    scores = sample_sets(chosen, answers, known=request.known)
    result = _Compared()
    for name, records in chosen.items():
        result.answers += len(records)
        for row, text in zip(rows[name], answers[name], strict=True):
            result.other_answers[name] += told[name][row] != reply_digest(salt, text)
        by_metric = {m: s for m, s in scores[name].items() if not isinstance(s, str)}
        bounds = dict.fromkeys(by_metric, _EXACT)
        if not name.startswith(STRANGERS):
            by_metric["answer_probability"] = _probabilities(replies, records)
            bounds["answer_probability"] = tolerance
        for metric, samples in by_metric.items():
            figure = figures.get(figure_name(model, name, metric))
            if figure is None:
                continue
            for place, row in enumerate(rows[name]):
                then, now = figure.scores[row], samples.get(place)
                result.scores += (then, now) != (None, None)
                result.other_scores[name] += not _alike(then, now, bounds[metric])
    return result


def _probabilities(replies: Replies, records: Sequence[Record]) -> dict[int, float]:
    scored = [row for row, record in enumerate(records) if record.form in PROBABILITY_FORMS]
    if not scored:
        return {}
    found = answer_probability(*replies.logprobs([records[row] for row in scored]))
    return {row: float(value) for row, value in zip(scored, found, strict=True)}


def _alike(then: float | None, now: float | None, bound: float) -> bool:
    if then is None or now is None:
        return then is now
    return abs(then - now) <= bound


def _asked(request: Request) -> dict[str, Sequence[Record]]:
    return {**request.split.audit, **on_strangers(request.floor)}


def _tolerance(vlm: VLM) -> float:
    """How far a probability may move with the batch that its question is in."""
    return TOLERANCE.get(vlm.dtype, TOLERANCE[torch.bfloat16])


def _elsewhere(found: Evidence, vlm: VLM) -> str:
    """What is otherwise here than where the audit ran, and may change answers by itself."""
    run = found.of(Run)[0]
    then = {**run.versions, "device": run.device}
    now = {**versions(), "device": f"{vlm.device.type}, {dtype_name(vlm)}"}
    other = [
        f"{name} {then[name]} then, {now[name]} now"
        for name in now
        if name in then and then[name] != now[name]
    ]
    return f"what may be the reason: {'; '.join(other)}" if other else ""


def _counted(by_set: Counter[str]) -> str:
    named = ", ".join(f"{name} {count}" for name, count in by_set.items() if count)
    return f"{by_set.total()} ({named})"
