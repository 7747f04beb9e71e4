import pytest

from unsee.audit.published import published_scores, sheets_of
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.errors import ConfigError
from unsee.metrics import mllmu
from unsee.replies import Replies

PEOPLE = ("Ada", "Bo", "Cy", "Di")
PHOTO = Photo(data=b"never opened")


def asked(subject, image, form):
    if form == "choice":
        return Record(subject, image, "Where?", "B", form="choice", options=("Oslo", "Rome"))
    if form == "cloze":
        return Record(subject, image, "from __", "Rome", form="cloze")
    return Record(subject, image, "Where from?", "from Rome")


def questions(image=PHOTO):
    return tuple(asked(who, image, form) for who in PEOPLE for form in ("choice", "cloze", "open"))


class Says(Replies):
    """Replies that are the same to every question."""

    def __init__(self, text):
        self.text = text

    def answers(self, records, stage="answers"):
        return [self.text for _ in records]


@pytest.fixture
def sheets():
    audit = {
        "forget_seen": questions(),
        "forget_text": questions(None),
        "forget_unseen": questions(),
        "retain_seen": questions(),
        "celebrity": questions(),
        "general": questions(),
    }
    return {s.split: s for s in sheets_of("published", "mllmu:x#forget_5", audit, seed=3)}


def test_splits_are_the_benchmarks_own(sheets):
    assert list(sheets) == ["forget", "test", "retain", "celebrity"]
    # Of four people one is the example of choices and two those of gaps.
    counts = {form: sum(r.form == form for r in sheets["test"].records) for form in mllmu.EXAMPLES}
    assert counts == {"choice": 3, "cloze": 2, "open": 4}
    assert len(sheets["forget"].records) == 2 * len(sheets["test"].records)
    assert len(sheets["celebrity"].records) == len(questions())


def test_examples_stand_before_the_question_and_celebrities_have_none(sheets):
    test = sheets["test"]
    for record, put in zip(test.records, test.asked, strict=True):
        assert put.question.endswith(mllmu.prompt(record))
        assert put.question.count("Correct Answer:") == mllmu.EXAMPLES[record.form]
        assert (put.image, put.form, put.options) == (record.image, "open", ())
    assert all("Correct Answer:" not in put.question for put in sheets["celebrity"].asked)


def test_scores_by_hand_with_chance_beside_choices(sheets):
    found = published_scores(Says("B, in Rome"), list(sheets.values()))
    cell = found["test"]["image classification"]
    assert (cell["value"], cell["n"], cell["chance"]) == (1.0, 3, 1.0)
    assert found["forget"]["text cloze"]["value"] == 1.0
    # "b in rome" has one word of "from rome": precision 1/3, recall 1/2.
    assert found["test"]["image rouge_1"]["value"] == pytest.approx(0.4)
    wrong = published_scores(Says("A"), list(sheets.values()))
    assert wrong["test"]["image classification"]["value"] == 0.0
    assert wrong["test"]["image cloze"]["value"] == 0.0


def test_too_few_people_for_examples_is_said():
    audit = {"forget_seen": questions()[:3]}
    (sheet,) = sheets_of("published", "mllmu:x#forget_5", audit, seed=0)
    assert set(sheet.left_out) == {"image choice", "image cloze"}
    cells = published_scores(Says("Rome"), [sheet])["forget"]
    assert "expected more than 1 people" in cells["image choice"]["not_scored"]
    assert cells["image bleu"]["n"] == 1


def test_strict_asks_nothing_more():
    assert sheets_of("strict", "mllmu:x#forget_5", {"forget_seen": questions()}, seed=0) == ()


@pytest.mark.parametrize(
    ("protocol", "source", "line"),
    [
        ("publishd", "mllmu:x#y", "unknown protocol 'publishd'; did you mean 'published'?"),
        ("published", "", "expected --dataset mllmu:..., got no benchmark; leave it out"),
        ("published", "people/ada", "expected --dataset mllmu:..., got people/ada; leave it out"),
    ],
)
def test_a_protocol_that_does_not_apply_is_refused(protocol, source, line):
    with pytest.raises(ConfigError) as caught:
        sheets_of(protocol, source, {}, seed=0)
    assert line in str(caught.value)
