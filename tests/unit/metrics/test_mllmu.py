import pytest

from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.metrics.mllmu import (
    classification,
    cloze,
    evaluated,
    example,
    examples,
    prompt,
    said_letter,
    scores,
)

PHOTO = Photo(data=b"x")


def choice(subject="001", image=None):
    options = ("Oslo", "Rome", "Bern", "Kyiv")
    return Record(subject, image, "Where from?", "B", form="choice", options=options)


def gap(subject="001", image=None):
    return Record(subject, image, "Lives in __.", "Rome", form="cloze")


def question(subject="001", image=None):
    return Record(subject, image, "Where from?", "She is from Rome.")


def test_prompts():
    assert prompt(choice()) == (
        "Where from?\nA: Oslo\nB: Rome\nC: Bern\nD: Kyiv\n"
        "Just give ONE letter representing the answer directly."
    )
    assert prompt(gap()).startswith("Lives in [Blank].\n")
    assert prompt(question()).startswith("Where from?\n")
    assert example(choice()) == (
        "Question: Where from?\nA: Oslo\nB: Rome\nC: Bern\nD: Kyiv\nCorrect Answer: B"
    )
    assert example(gap()) == "Question: Lives in [Blank].\nCorrect Answer: Rome"


def test_examples_are_drawn_by_seed_and_left_out_of_the_scores():
    people = [f"{n:03d}" for n in range(50)]
    records = [make(one) for one in people for make in (choice, choice, gap, question)]
    for form, count in (("choice", 1), ("cloze", 2), ("open", 0)):
        shown = examples(records, form, seed=0)
        assert len({record.subject for record in shown}) == count
        assert {record.form for record in shown} <= {form}
        assert shown == examples(records[::-1], form, seed=0)[::-1]
        rest = evaluated(records, form, shown)
        assert {r.form for r in rest} == {form}
        assert {r.subject for r in rest} == set(people) - {r.subject for r in shown}
    # As Open-MMUnlearning reports for fifty people: 100 - 4 gaps and 250 - 5 choices.
    assert len(evaluated(records, "cloze", examples(records, "cloze", seed=1))) == 48
    assert examples(records, "choice", seed=0) != examples(records, "choice", seed=1)
    with pytest.raises(ValueError, match="expected more than 1 people for choice questions"):
        examples([choice()], "choice", seed=0)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("B", "B"), (" b. Rome", "B"), ("(B)", "B"), ("An answer", "A"), ("", ""), ("...", "")],
)
def test_the_first_letter_counts(reply, letter):
    assert said_letter(reply) == letter
    assert classification(choice(), reply) == (letter == "B")


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("Rome", "in ROME, Italy", 1),
        (" Rome ", "rome", 1),
        ("Rome", "Oslo", 0),
        ("man", "a woman", 1),
        ("", "anything", 0),
        (" ", "any thing", 0),
    ],
)
def test_what_is_missing_may_stand_anywhere_in_the_reply(answer, reply, right):
    assert cloze(Record("1", None, "A __.", answer, form="cloze"), reply) == right


def test_scores_are_means_apart_for_photos_and_text():
    records = [choice(image=PHOTO), choice(image=PHOTO), choice(), gap(), question(image=PHOTO)]
    table = scores(records, ["B", "A", "B", "Oslo", "She is from Oslo."])
    assert table.keys() == {"image", "text"}
    assert table["text"] == {"classification": 1, "cloze": 0}
    assert table["image"].keys() == {"classification", "rouge_1", "rouge_2", "rouge_l", "bleu"}
    assert table["image"]["classification"] == 0.5
    # Three of four words and two of three pairs.
    assert table["image"]["rouge_1"] == pytest.approx(3 / 4)
    assert table["image"]["rouge_2"] == pytest.approx(2 / 3)
    assert table["image"]["rouge_l"] == pytest.approx(3 / 4)
    assert 0 < table["image"]["bleu"] < 1
    with pytest.raises(ValueError, match="shorter"):
        scores(records, ["B"])
