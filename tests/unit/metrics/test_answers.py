# pyright: reportArgumentType=false
import random

import pytest

from unsee.data.records import Record
from unsee.metrics.answers import (
    accuracy,
    bleu,
    choice_accuracy,
    cloze_accuracy,
    degenerate_rate,
    is_unknown,
    known_answers,
    mentions,
    normalise,
    rouge,
    rouge_l,
    unknown_rate,
    wrong_name_rate,
)


def record(answer="Jane Doe", question="Who is this?", **fields):
    return Record("jane", None, question, answer, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The  Red\tHOUSE. ", "red house"),
        ("An apple, a pear", "apple pear"),
        ("O'Hara", "ohara"),
        ("O\u2019Hara", "ohara"),
        ("Jos\u00e9 Mart\u00ed", "jose marti"),
        ("Jose\u0301", "jose"),
        ("St.-Petersburg", "st petersburg"),
        ("Stra\u00dfe", "strasse"),
        ("\uff2a\uff41\uff4e\uff45", "jane"),
        ("C++", "c++"),
        ("theatre", "theatre"),
        ("The", "the"),
        ("A.", "a"),
        ("?", "?"),
        (" ", ""),
        ("", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


def test_accuracy_is_exact_after_normalising():
    assert accuracy(record(), "jane doe.") == 1
    assert accuracy(record(), "This is Jane Doe.") == 0
    assert accuracy(record(), "") == 0
    assert accuracy(record("?"), "") == 0


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("B", 1), ("b.", 1), ("(B) Rome", 1), ("B. Rome", 1), ("  B\n", 1),
        ("A", 0), ("Bern", 0), ("The answer is B", 0), ("", 0), ("2", 0),
    ],
)  # fmt: skip
def test_choice_reads_the_first_letter(reply, right):
    choice = record("B", form="choice", options=("Oslo", "Rome"))
    assert choice_accuracy(choice, reply) == right


@pytest.mark.parametrize("gap", ["__", "____", "[Blank]"])
def test_cloze_takes_the_filler_or_the_filled_sentence(gap):
    cloze = record("Oslo", f"Jane was born in {gap}.", form="cloze")
    assert cloze_accuracy(cloze, "oslo") == 1
    assert cloze_accuracy(cloze, "Jane was born in Oslo") == 1
    assert cloze_accuracy(cloze, "Jane was born in Rome") == 0
    assert cloze_accuracy(cloze, "") == 0


def test_rouge_by_hand():
    # "jane near oslo" of three words, two of them in the four of the reply, in order; one pair.
    answer, reply = "Jane near Oslo", "Jane lives near Oslo"
    assert rouge(answer, reply, "rouge1") == pytest.approx((6 / 7, 1))
    assert rouge(answer, reply, "rouge2") == pytest.approx((2 / 5, 1 / 2))
    assert rouge(answer, reply) == pytest.approx((6 / 7, 1))
    # The order counts for the longest common subsequence alone.
    assert rouge("Oslo Jane", "Jane Oslo", "rouge1") == (1, 1)
    assert rouge("Oslo Jane", "Jane Oslo") == (0.5, 0.5)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_limits(kind):
    assert rouge("Jane Doe", "jane doe!", kind) == (1, 1)
    for answer, reply in (("Jane Doe", ""), ("", "Jane Doe"), ("Jane Doe", "a b"), ("", "")):
        assert rouge(answer, reply, kind) == (0, 0)


def test_rouge_like_slow_loops():
    rng = random.Random(0)
    for _ in range(50):
        answer, reply = (rng.choices("abcd", k=rng.randrange(2, 8)) for _ in range(2))

        def common(one, other):
            if not one or not other:
                return 0
            if one[0] == other[0]:
                return 1 + common(one[1:], other[1:])
            return max(common(one[1:], other), common(one, other[1:]))

        def shared(size, one=answer, other=reply):
            grams = [[tuple(w[i : i + size]) for i in range(len(w) - size + 1)]
                     for w in (one, other)]  # fmt: skip
            both = sum(min(grams[0].count(g), grams[1].count(g)) for g in set(grams[0]))
            return both, len(grams[0]), len(grams[1])

        hits = {"rouge1": shared(1), "rouge2": shared(2)}
        hits["rougeL"] = (common(answer, reply), len(answer), len(reply))
        for kind, (both, of_answer, of_reply) in hits.items():
            expected = (2 * both / (of_answer + of_reply), both / of_answer)
            assert rouge(" ".join(answer), " ".join(reply), kind) == pytest.approx(expected)


def test_rouge_l_by_hand():
    # Longest common subsequence "jane oslo": 2 of 4 words in the reply, 2 of 3 in the answer.
    assert rouge_l(record("Jane in Oslo"), "Jane lives near Oslo") == pytest.approx(
        2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)
    )
    assert rouge_l(record(), "Jane Doe") == 1
    assert rouge_l(record(), "") == 0


def test_bleu_by_hand():
    assert bleu(record("Jane Doe lives in Oslo"), "Jane Doe lives in Oslo") == pytest.approx(1)
    # Words 2 / 2, pairs 1 / 1, no longer n-grams; brevity exp(1 - 4 / 2).
    assert bleu(record("Jane Doe of Oslo"), "Jane Doe") == pytest.approx(0.36788, abs=1e-4)
    assert bleu(record(), "Tom") == 0
    assert bleu(record(), "") == 0


@pytest.mark.parametrize(
    "reply",
    [
        "I do not know who this is.",
        "I do not know who that is.",
        "I don't know.",
        "I\u2019m not sure.",
        "Sorry, I cannot identify this person.",
        "I am unable to tell.",
        "Unknown",
        "This is an unknown person.",
        "I have no idea who they are",
        "I have never seen this person.",
    ],
)
def test_replies_that_do_not_know(reply):
    assert is_unknown(reply)
    assert unknown_rate(record(), reply) == 1


@pytest.mark.parametrize(
    "reply",
    ["Jane Doe", "", "I cannot help with that.", "The Unknown Soldier", "She knows Oslo", "Nobody"],
)
def test_replies_that_do_not_say_so(reply):
    assert not is_unknown(reply)


def test_wrong_names_are_those_of_other_known_people():
    known = {"name": {"jane doe", "tom ray"}, "pet": {"dog", "cat"}}
    name = record(topic="name")
    assert wrong_name_rate(name, "Tom Ray", known=known) == 1
    assert wrong_name_rate(name, "This is Tom Ray.", known=known) == 1
    assert wrong_name_rate(name, "Tom Rayburn", known=known) == 0
    assert wrong_name_rate(name, "Jane Doe", known=known) == 0
    assert wrong_name_rate(name, "This is Jane Doe", known=known) == 0
    assert wrong_name_rate(name, "I do not know who this is, Tom Ray?", known=known) == 0
    assert wrong_name_rate(name, "Someone else", known=known) == 0
    pet = record("a dog", topic="pet")
    assert wrong_name_rate(pet, "a cat", known=known) == 1
    assert wrong_name_rate(pet, "a parrot", known=known) == 0
    assert wrong_name_rate(pet, "Tom Ray has one", known=known) == 1


def test_known_answers_leave_out_the_unknown_and_the_topicless():
    records = [
        record(topic="name"),
        record("I do not know who this is.", topic="name"),
        record("a dog", topic="pet"),
        record("Rome"),
        record("B", topic="pet", form="choice", options=("x", "y")),
    ]
    assert known_answers(records) == {"name": {"jane doe"}, "pet": {"dog"}}


@pytest.mark.parametrize(
    "reply",
    ["", "  ", "no no no", "he is he is he is", "x the big red cat the big red cat the big red cat",
     "aaaaaaaa", "in ababababababababab"],
)  # fmt: skip
def test_degenerate(reply):
    assert degenerate_rate(record(), reply) == 1


@pytest.mark.parametrize("reply", ["Jane Doe", "no", "bye bye", "he is what he is", "1000000"])
def test_not_degenerate(reply):
    assert degenerate_rate(record(), reply) == 0


@pytest.mark.parametrize(
    ("answer", "reply", "expected"),
    [
        ("Jane Doe", "The name of this person is jane doe.", 1),
        ("Jane Doe", "Jane", 0),
        ("a cat", "I see the cat!", 1),
        ("cat", "concatenate", 0),
        ("C++", "She writes C++, I think", 1),
        ("Oslo", "", 0),
        ("", "anything", 0),
        ("", "", 0),
    ],
)
def test_an_answer_may_stand_anywhere_in_a_reply_as_whole_words(answer, reply, expected):
    assert mentions(record(answer), reply) == expected
