"""MLLMU-Bench's own prompts, parsing, examples and scores: `protocol = "published"`.

Liu et al. 2024, https://arxiv.org/abs/2410.22108. Greedy answers of at most 50 tokens. What of the
published evaluation is a fault and mended here is listed in docs/benchmarks.md.
"""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from unsee.data.records import LETTERS, Record
from unsee.metrics.answers import bleu, rouge

# Whose questions, with answers, stand before each question; nobody's for celebrities.
EXAMPLES = {"choice": 1, "cloze": 2, "open": 0}
CHOICE_INSTRUCTION = "Just give ONE letter representing the answer directly."
# The paper's code words these two otherwise.
CLOZE_INSTRUCTION = "Fill in [Blank]. Reply with what is missing and nothing else."
OPEN_INSTRUCTION = "Answer in one sentence, in English."
_GAP = "__"

Scores = dict[str, dict[str, float]]


def prompt(record: Record) -> str:
    """What is asked, as the user's turn; photo and chat template are the caller's.

    Args:
        record: A choice, a gap or an open question.
    """
    if record.form == "choice":
        return f"{_with_options(record)}\n{CHOICE_INSTRUCTION}"
    if record.form == "cloze":
        return f"{record.question.replace(_GAP, '[Blank]')}\n{CLOZE_INSTRUCTION}"
    return f"{record.question}\n{OPEN_INSTRUCTION}"


def example(record: Record) -> str:
    """A question with its right answer, as it stands before another one."""
    if record.form == "choice":
        return f"Question: {_with_options(record)}\nCorrect Answer: {record.answer}"
    return f"Question: {record.question.replace(_GAP, '[Blank]')}\nCorrect Answer: {record.answer}"


def examples(records: Sequence[Record], form: str, *, seed: int) -> list[Record]:
    """All questions of a form of the people whose answers are given away.

    They are drawn from those who are evaluated; `evaluated` leaves them out of the scores.

    Args:
        records: Questions of a split.
        form: "choice", "cloze" or "open".
        seed: The same seed, the same people; the published code draws anew at each run.

    Raises:
        ValueError: If nobody else would be left.
    """
    people = sorted({record.subject for record in records})
    count = EXAMPLES[form]
    if count >= len(people):
        raise ValueError(f"expected more than {count} people for {form} questions, got {people}")
    shown = set(random.Random(seed).sample(people, count))
    return [record for record in records if record.subject in shown and record.form == form]


def evaluated(records: Sequence[Record], form: str, shown: Sequence[Record]) -> list[Record]:
    """Questions of a form that are scored: those of people who are no example.

    Args:
        records: Questions of a split.
        form: "choice", "cloze" or "open".
        shown: `examples` of that form; empty for celebrities.
    """
    people = {record.subject for record in shown}
    return [r for r in records if r.subject not in people and r.form == form]


def said_letter(reply: str) -> str:
    """First letter or digit of a reply as a capital; "" if there is none.

    So a reply that begins with the word "An" chooses A, as published.
    """
    return next((character.upper() for character in reply if character.isalnum()), "")


def classification(record: Record, reply: str) -> float:
    """1 if the reply begins with the right letter."""
    return float(said_letter(reply) == record.answer)


def cloze(record: Record, reply: str) -> float:
    """1 if what is missing occurs in the reply, in capitals or not; "man" occurs in "woman"."""
    missing = record.answer.strip().casefold()
    return float(bool(missing) and missing in reply.casefold())


def sample(record: Record, reply: str) -> Mapping[str, float]:
    """Every score of one reply, 0..1 each: classification, cloze, or four of overlap."""
    if record.form == "choice":
        return {"classification": classification(record, reply)}
    if record.form == "cloze":
        return {"cloze": cloze(record, reply)}
    return {
        "rouge_1": rouge(record.answer, reply, "rouge1")[0],
        "rouge_2": rouge(record.answer, reply, "rouge2")[0],
        "rouge_l": rouge(record.answer, reply)[0],
        "bleu": bleu(record, reply),
    }


def scores(records: Sequence[Record], replies: Sequence[str]) -> Scores:
    """Mean of each score, apart for questions with a photo and for text alone.

    Args:
        records: Questions that were asked.
        replies: Answers, one a question; what stood in the prompt is not part of them.

    Returns:
        `{"image" | "text": {"classification", "cloze", "rouge_1", "rouge_2", "rouge_l", "bleu"}}`,
        0..1 each; what was not asked is absent.
    """
    samples: dict[tuple[str, str], list[float]] = {}
    for record, reply in zip(records, replies, strict=True):
        modality = "text" if record.image is None else "image"
        for name, value in sample(record, reply).items():
            samples.setdefault((modality, name), []).append(value)
    table: Scores = {}
    for (modality, name), values in samples.items():
        table.setdefault(modality, {})[name] = float(np.mean(values))
    return table


def _with_options(record: Record) -> str:
    options = zip(LETTERS, record.options, strict=False)
    return "\n".join([record.question, *(f"{letter}: {text}" for letter, text in options)])
