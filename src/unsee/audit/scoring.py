"""What one model is worth on the sets of an audit."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.metrics.distributions import distance_interval, js_distance, ks_statistic
from unsee.metrics.sets import AnswerLogprobs, SetSamples, cells_of, sample_sets
from unsee.models.load import VLM
from unsee.replies import Replies, answer_digest
from unsee.report.schema import ModelName

# Wrong answers stand beside the true one on these sets alone; each costs a pass of its own.
RATIO_SETS = ("forget_seen", "forget_unseen", "forget_text")
WRONG_ANSWERS = 3
_TEXT_BATCH = 16
# Scores whose distributions are compared, and how.
DISTANCE_SCORES = ("truth_ratio", "answer_probability")
DISTANCES = {"ks": ks_statistic, "js": js_distance}

Scores = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Scored:
    """A model's answers and what they are worth.

    Attributes:
        answers: Answers by set, aligned with its records.
        logprobs: Log-probabilities of the right and of wrong answers, likewise.
        scores: Cells of `report.json` by set and metric.
        samples: Score of each answer, by set, metric and row.
    """

    answers: Mapping[str, Sequence[str]]
    logprobs: Mapping[str, AnswerLogprobs]
    scores: Scores
    samples: SetSamples = field(default_factory=dict)


def score(
    replies: Replies,
    sets: Mapping[str, Sequence[Record]],
    *,
    known: Mapping[str, Set[str]],
    not_scored: Mapping[str, str],
    seed: int,
) -> Scored:
    """Ask a model everything and score it.

    Args:
        replies: Of the model.
        sets: Records by set.
        known: Answers about known people by topic, for wrong names.
        not_scored: Sets left out -> why.
        seed: Of the intervals.
    """
    asked = {name: records for name, records in sets.items() if name not in not_scored}
    everything = [record for records in asked.values() for record in records]
    replies.answers(everything)
    wrong = {
        name: _wrong_answers(asked[name]) if name in RATIO_SETS else [[] for _ in records]
        for name, records in asked.items()
    }
    rivals = [record for rows in wrong.values() for row in rows for record in row]
    replies.logprobs([*everything, *rivals])
    answers = {name: replies.answers(records) for name, records in asked.items()}
    logprobs = {name: _logprobs(replies, rows, wrong[name]) for name, rows in asked.items()}
    samples = sample_sets(asked, answers, logprobs_by_set=logprobs, known=known)
    scores = cells_of(samples, asked, seed=seed)
    scores |= {name: {"accuracy": {"not_scored": why}} for name, why in not_scored.items()}
    return Scored(answers, logprobs, scores, samples)


def score_answers(
    replies: Replies, sets: Mapping[str, Sequence[Record]], *, seed: int = 0
) -> Scored:
    """Ask a model and score its answers alone, without probabilities."""
    answers = {name: replies.answers(records) for name, records in sets.items()}
    samples = sample_sets(sets, answers)
    return Scored(answers, {}, cells_of(samples, sets, seed=seed), samples)


def text_logits(vlm: VLM, records: Sequence[Record]) -> list[str]:
    """Digests of the logits on text-only prompts, a digest a batch; equal bits, equal digests."""
    digests = []
    for start in range(0, len(records), _TEXT_BATCH):
        batch = encode(vlm, records[start : start + _TEXT_BATCH], answers=False, side="left")
        with torch.inference_mode():
            logits = vlm.model(**batch.to(vlm.device).inputs(), use_cache=False).logits
        values = logits.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digests.append(hashlib.sha256(values).hexdigest())
    return digests


def _wrong_answers(records: Sequence[Record]) -> list[list[Record]]:
    """For each open question, the same question with answers about other subjects."""
    pool: dict[tuple[str, str], set[str]] = {}
    for record in records:
        if record.form == "open" and record.topic:
            pool.setdefault((record.form, record.topic), set()).add(record.answer)
    rows = []
    for record in records:
        others = sorted(pool.get((record.form, record.topic), set()) - {record.answer})
        rivals = [replace(record, answer=answer) for answer in others]
        rivals.sort(key=answer_digest)
        rows.append(rivals[:WRONG_ANSWERS])
    return rows


def _logprobs(
    replies: Replies, records: Sequence[Record], wrong: Sequence[Sequence[Record]]
) -> AnswerLogprobs:
    sums, tokens = replies.logprobs(records)
    means = []
    for row in wrong:
        rival_sums, rival_tokens = replies.logprobs(row)
        means.append([float(mean) for mean in rival_sums / rival_tokens])
    return AnswerLogprobs(sums, tokens, means, replies.repeated(records))


def distances(
    scored: Mapping[ModelName, Scored], sets: Mapping[str, Sequence[Record]], *, seed: int
) -> dict[str, Scores]:
    """How far each model's scores on forget sets lie from gold's, and from its own on kept people.

    Cells as in `report.json`, by model, set and metric: `SCORE_ks` and `SCORE_js` against gold on
    the same questions; `SCORE_ks_retain` and `SCORE_js_retain` against the model's own scores on
    `retain_unseen`, or `retain_seen` where there is none, which says less: people differ.
    """
    table: dict[str, Scores] = {}
    kept = next((name for name in ("retain_unseen", "retain_seen") if name in sets), None)
    for model, found in scored.items():
        for name in set(RATIO_SETS) & found.samples.keys():
            cells: dict[str, Any] = {}
            for score in DISTANCE_SCORES:
                here = _told(found, sets, name, score)
                others = {"": _told(scored.get("gold"), sets, name, score)}
                if kept is not None:
                    others["_retain"] = _told(found, sets, kept, score)
                for which, other in others.items():
                    if here is None or other is None or (model == "gold" and not which):
                        continue
                    for distance, measure in DISTANCES.items():
                        cell = distance_interval(measure, *here, *other, seed=seed)
                        cells[f"{score}_{distance}{which}"] = cell
            table.setdefault(model, {})[name] = cells
    return table


def _told(
    found: Scored | None, sets: Mapping[str, Sequence[Record]], name: str, score: str
) -> tuple[list[float], list[str]] | None:
    """Scores of a set's questions, and whom each is about."""
    samples = found.samples.get(name, {}).get(score) if found is not None else None
    if not isinstance(samples, Mapping) or not samples:
        return None
    return list(samples.values()), [sets[name][row].subject for row in samples]
