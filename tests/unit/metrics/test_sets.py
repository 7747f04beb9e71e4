import math

import numpy as np
import pytest

from unsee.data.records import Record
from unsee.errors import DataError
from unsee.metrics.sets import METRICS, AnswerLogprobs, chance_accuracy, sample_scores, score_sets


def name_of(subject, answer, **fields):
    return Record(subject, None, "Who is this?", answer, topic="name", **fields)


MIXED = [
    name_of("jane", "Jane Doe"),
    name_of("tom", "Tom Ray"),
    Record("jane", None, "Which?", "A", form="choice", options=("x", "y"), topic="pet"),
    Record("tom", None, "Which?", "B", form="choice", options=("x", "y"), topic="pet"),
    Record("tom", None, "Tom has a __.", "dog", form="cloze", topic="pet"),
    Record("tom", None, "Describe.", "A man with a dog", form="caption"),
]
REPLIES = ["Tom Ray", "Tom Ray", "A", "A", "cat", "A man with a dog"]


def test_every_metric_on_a_mixed_set_by_hand():
    logprobs = AnswerLogprobs(
        sums=np.log([0.25, 0.5, 0.9, 0.9, 0.5, 0.75]), tokens=np.ones(6, dtype=np.int64),
        wrong=[[math.log(0.25)], [], [], [], [], []],
        repeated=["1", "011", "1", "1", "10", "0"],
    )  # fmt: skip
    known = {"name": {"jane doe", "tom ray"}}
    table = score_sets(
        {"forget_seen": MIXED}, {"forget_seen": REPLIES},
        logprobs_by_set={"forget_seen": logprobs}, known=known,
    )  # fmt: skip
    scores = table["forget_seen"]
    assert set(scores) == set(METRICS)
    assert scores["accuracy"] == {"value": 0.5, "ci": [0, 1], "n": 2, "chance": 0.5}
    assert scores["choice_accuracy"] == {"value": 0.5, "ci": [0, 1], "n": 2, "chance": 0.5}
    assert scores["cloze_accuracy"] == {"value": 0, "ci": [0, 0], "n": 1, "chance": None}
    assert scores["wrong_name_rate"]["value"] == 0.5
    assert scores["wrong_name_rate"]["n"] == 2
    assert scores["unknown_rate"]["value"] == 0
    assert scores["degenerate_rate"] == {"value": 0, "ci": [0, 0], "n": 6, "chance": None}
    assert scores["rouge_l"]["value"] == pytest.approx((0 + 1 + 1) / 3)
    assert scores["bleu"]["value"] == pytest.approx(2 / 3)
    assert scores["answer_probability"]["value"] == pytest.approx((0.25 + 0.5 + 0.5 + 0.75) / 4)
    assert scores["truth_ratio"]["value"] == pytest.approx(0.5)
    assert scores["truth_ratio"]["n"] == 1
    # Of rows 0, 1, 4 and 5, which are no choices.
    assert scores["exact_memorisation"]["value"] == pytest.approx((1 + 2 / 3 + 1 / 2 + 0) / 4)
    assert scores["extraction_strength"]["value"] == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert scores["rouge_1"]["value"] >= scores["rouge_2"]["value"]


def test_not_scored_says_why_and_is_never_zero():
    choices = MIXED[2:4]
    scores = score_sets({"general": choices}, {"general": ["A", "B"]})["general"]
    assert scores["accuracy"] == {"not_scored": "no open questions in this set"}
    assert scores["rouge_l"] == {"not_scored": "no open or caption questions in this set"}
    assert scores["wrong_name_rate"] == {
        "not_scored": "no answers about other known people to compare with"
    }
    why = {"not_scored": "log-probabilities of answers were not computed"}
    assert scores["answer_probability"] == scores["truth_ratio"] == why
    known = score_sets({"general": choices}, {"general": ["A", "B"]}, known={"job": {"cook"}})
    assert known["general"]["wrong_name_rate"] == {
        "not_scored": "no open questions on topics of other known people in this set"
    }
    scored = AnswerLogprobs(sums=np.zeros(2), tokens=np.ones(2, dtype=np.int64))
    scores = score_sets(
        {"general": MIXED[:2]}, {"general": ["", ""]}, logprobs_by_set={"general": scored}
    )["general"]
    assert scores["truth_ratio"] == {"not_scored": "no wrong answers to compare with"}
    assert scores["answer_probability"]["value"] == 1
    assert scores["exact_memorisation"] == {
        "not_scored": "which tokens the model would say itself was not looked at"
    }


def test_empty_set_is_not_scored():
    scores = score_sets({"refusal": []}, {"refusal": []})["refusal"]
    assert all("not_scored" in cell for cell in scores.values())


def test_missing_answers_are_an_error():
    with pytest.raises(DataError, match="general: expected 6 answers, one a record, got none"):
        score_sets({"general": MIXED}, {})
    with pytest.raises(DataError, match="expected 6 answers, one a record, got 2; answer"):
        score_sets({"general": MIXED}, {"general": ["a", "b"]})


def test_chance_by_hand():
    pets = [
        Record(subject, None, "Which pet?", pet, topic="pet")
        for subject, pet in (("a", "a dog"), ("b", "Dog."), ("c", "cat"), ("d", "newt"))
    ]
    names = [name_of(subject, subject) for subject in "abcd"]
    assert chance_accuracy(pets) == 0.5
    assert chance_accuracy(pets + names) == (2 + 1) / 8


def test_chance_says_nothing_where_each_question_has_one_subject():
    born = [
        Record(subject, None, f"Where was {subject} born?", "Oslo") for subject in ("Jane", "Tom")
    ]
    assert chance_accuracy(born) is None
    assert chance_accuracy([]) is None
    # With a topic they are one question, which "Oslo" answers for everybody.
    same = [Record(r.subject, None, r.question, r.answer, topic="birthplace") for r in born]
    assert chance_accuracy(same) == 1


def test_chance_of_a_choice_is_that_of_a_letter():
    letters = [
        Record(subject, None, f"{subject}?", letter, form="choice", options=("x", "y", "z"))
        for subject, letter in (("a", "A"), ("b", "B"), ("c", "B"), ("d", "C"))
    ]
    assert chance_accuracy(letters) == 0.5


def test_sample_scores_keep_their_rows():
    assert sample_scores("accuracy", MIXED, REPLIES) == {0: 0.0, 1: 1.0}
    assert sample_scores("choice_accuracy", MIXED, REPLIES) == {2: 1.0, 3: 0.0}
