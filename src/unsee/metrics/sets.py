"""Scores of one model on all sets, as `report.json` holds them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsee.data.records import FORMS, Record
from unsee.errors import DataError
from unsee.metrics import answers as replies
from unsee.metrics.answers import normalise
from unsee.metrics.intervals import RESAMPLES, mean_interval
from unsee.metrics.memorisation import exact_memorisation, extraction_strength
from unsee.metrics.probability import answer_probability, truth_ratio

Cell = dict[str, Any]
Samples = dict[int, float]
SetSamples = dict[str, dict[str, Samples | str]]


@dataclass(frozen=True)
class ReplyMetric:
    """A metric of single replies.

    Attributes:
        forms: Forms of question that it scores.
        sample: Score of one reply.
        has_chance: Whether a constant answer can score, so that chance means something.
    """

    forms: tuple[str, ...]
    sample: Callable[[Record, str], float]
    has_chance: bool = False


def _rouge(record: Record, reply: str, kind: replies.Rouge) -> float:
    return replies.rouge(record.answer, reply, kind)[0]


REPLY_METRICS = {
    "accuracy": ReplyMetric(("open",), replies.accuracy, has_chance=True),
    "choice_accuracy": ReplyMetric(("choice",), replies.choice_accuracy, has_chance=True),
    "cloze_accuracy": ReplyMetric(("cloze",), replies.cloze_accuracy, has_chance=True),
    "rouge_l": ReplyMetric(("open", "caption"), replies.rouge_l),
    "rouge_1": ReplyMetric(("open", "caption"), partial(_rouge, kind="rouge1")),
    "rouge_2": ReplyMetric(("open", "caption"), partial(_rouge, kind="rouge2")),
    "bleu": ReplyMetric(("open", "caption"), replies.bleu),
    "unknown_rate": ReplyMetric(("open",), replies.unknown_rate),
    "degenerate_rate": ReplyMetric(FORMS, replies.degenerate_rate),
}
PROBABILITY_FORMS = ("open", "cloze", "caption")
TOKEN_METRICS = {
    "exact_memorisation": exact_memorisation,
    "extraction_strength": extraction_strength,
}
METRICS = (
    *REPLY_METRICS,
    "wrong_name_rate",
    "answer_probability",
    "truth_ratio",
    *TOKEN_METRICS,
)


@dataclass(frozen=True)
class AnswerLogprobs:
    """Log-probabilities of answers, aligned with the records of a set.

    Attributes:
        sums: Of the right answers, summed over tokens, nats, (record,).
        tokens: Tokens of the right answers, (record,).
        wrong: Mean log-probability a token of each record's wrong answers; empty for a
            record without any, and for the whole set where none were scored.
        repeated: Which tokens of each right answer the model would say itself, "1" or "0" each;
            empty where that was not looked at.
    """

    sums: NDArray[np.float64]
    tokens: NDArray[np.int64]
    wrong: Sequence[Sequence[float]] = ()
    repeated: Sequence[str] = ()


def score_sets(
    records_by_set: Mapping[str, Sequence[Record]],
    answers_by_set: Mapping[str, Sequence[str]],
    *,
    logprobs_by_set: Mapping[str, AnswerLogprobs] | None = None,
    known: Mapping[str, Set[str]] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, Cell]]:
    """Every metric on every set: `{SET: {METRIC: {"value", "ci", "n", "chance"}}}`.

    Args:
        records_by_set: Records to score, by set.
        answers_by_set: The model's replies, aligned with the records.
        logprobs_by_set: Log-probabilities of answers; sets without them are not scored
            on probability.
        known: Answers about known people by topic, for `wrong_name_rate`.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        Cells; what could not be scored is `{"not_scored": why}`. Values and chance are 0..1.

    Raises:
        DataError: If replies are missing or do not match the records.
    """
    samples = sample_sets(
        records_by_set, answers_by_set, logprobs_by_set=logprobs_by_set, known=known
    )
    return cells_of(samples, records_by_set, seed=seed, resamples=resamples)


def sample_sets(
    records_by_set: Mapping[str, Sequence[Record]],
    answers_by_set: Mapping[str, Sequence[str]],
    *,
    logprobs_by_set: Mapping[str, AnswerLogprobs] | None = None,
    known: Mapping[str, Set[str]] | None = None,
) -> SetSamples:
    """Score of each reply by set, metric and row; why, where a metric scores none of a set.

    Arguments and errors are those of `score_sets`.
    """
    table: SetSamples = {}
    for name, records in records_by_set.items():
        given = answers_by_set.get(name)
        if given is None or len(given) != len(records):
            got = "none" if given is None else len(given)
            raise DataError(
                f"{name}: expected {len(records)} answers, one a record, got {got}; "
                "answer the set again"
            )
        found: dict[str, Samples | str] = {
            metric: sample_scores(metric, records, given)
            or f"no {' or '.join(scored.forms)} questions in this set"
            for metric, scored in REPLY_METRICS.items()
        }
        found["wrong_name_rate"] = _wrong_names(records, given, known)
        table[name] = found | _probabilities(records, (logprobs_by_set or {}).get(name))
    return table


def cells_of(
    samples_by_set: SetSamples,
    records_by_set: Mapping[str, Sequence[Record]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, Cell]]:
    """The cells of `score_sets`, from the scores of single replies.

    Args:
        samples_by_set: As `sample_sets` returns them.
        records_by_set: Records that were scored, by set.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
    """
    return {
        name: {
            metric: {"not_scored": samples}
            if isinstance(samples, str)
            else _cell(samples, records_by_set[name], metric, seed=seed, resamples=resamples)
            for metric, samples in found.items()
        }
        for name, found in samples_by_set.items()
    }


def sample_scores(metric: str, records: Sequence[Record], answers: Sequence[str]) -> Samples:
    """Score of each reply by row number; rows of a form that the metric does not score are absent.

    Args:
        metric: Name in `REPLY_METRICS`.
        records: Records asked.
        answers: Replies, aligned with the records.
    """
    scored = REPLY_METRICS[metric]
    return {
        row: scored.sample(record, reply)
        for row, (record, reply) in enumerate(zip(records, answers, strict=True))
        if record.form in scored.forms
    }


def chance_accuracy(records: Sequence[Record]) -> float | None:
    """Accuracy of always giving the most common answer to each question, 0..1.

    Questions are the same if they share topic and form, or wording where there is no topic;
    for a choice the constant answer is a letter. A question asked about one subject only says
    nothing about chance and is left out; None if that leaves no question.
    """
    asked: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        question = "" if record.form == "choice" else record.topic or normalise(record.question)
        asked.setdefault((record.form, question), []).append(record)
    shared = [group for group in asked.values() if len({record.subject for record in group}) > 1]
    if not shared:
        return None
    common = sum(
        Counter(normalise(record.answer) for record in group).most_common(1)[0][1]
        for group in shared
    )
    return common / sum(len(group) for group in shared)


def _wrong_names(
    records: Sequence[Record], answers: Sequence[str], known: Mapping[str, Set[str]] | None
) -> Samples | str:
    if not known:
        return "no answers about other known people to compare with"
    samples = {
        row: replies.wrong_name_rate(record, reply, known=known)
        for row, (record, reply) in enumerate(zip(records, answers, strict=True))
        if record.form == "open" and record.topic in known
    }
    return samples or "no open questions on topics of other known people in this set"


def _probabilities(
    records: Sequence[Record], logprobs: AnswerLogprobs | None
) -> dict[str, Samples | str]:
    if logprobs is None:
        why = "log-probabilities of answers were not computed"
        return dict.fromkeys(("answer_probability", "truth_ratio", *TOKEN_METRICS), why)
    rows = [row for row, record in enumerate(records) if record.form in PROBABILITY_FORMS]
    probability = answer_probability(logprobs.sums, logprobs.tokens)
    ratios = {
        row: truth_ratio(float(logprobs.sums[row] / logprobs.tokens[row]), logprobs.wrong[row])
        for row in rows
        if len(logprobs.wrong) and len(logprobs.wrong[row])
    }
    return {
        "answer_probability": {row: float(probability[row]) for row in rows}
        or f"no {' or '.join(PROBABILITY_FORMS)} questions in this set",
        "truth_ratio": ratios or "no wrong answers to compare with",
        **{name: _tokens(score, rows, logprobs) for name, score in TOKEN_METRICS.items()},
    }


def _tokens(
    score: Callable[[Sequence[str], Sequence[str]], float],
    rows: Sequence[int],
    logprobs: AnswerLogprobs,
) -> Samples | str:
    """A score of which tokens come out right: each is right where it is as it should be, a 1."""
    if not len(logprobs.repeated):
        return "which tokens the model would say itself was not looked at"
    told = {row: list(logprobs.repeated[row]) for row in rows}
    return {row: score(right, ["1"] * len(right)) for row, right in told.items()} or (
        f"no {' or '.join(PROBABILITY_FORMS)} questions in this set"
    )


def _cell(
    samples: Samples, records: Sequence[Record], metric: str, *, seed: int, resamples: int
) -> Cell:
    scored = [records[row] for row in samples]
    interval = mean_interval(
        list(samples.values()),
        [record.subject for record in scored],
        seed=seed,
        resamples=resamples,
    )
    has_chance = metric in REPLY_METRICS and REPLY_METRICS[metric].has_chance
    return {
        "value": interval.value,
        "ci": [interval.low, interval.high],
        "n": interval.n,
        "chance": chance_accuracy(scored) if has_chance else None,
    }
