# pyright: reportOptionalMemberAccess=false
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.audit.published import published_of
from unsee.audit.published_mllmu import MLLMUSheets
from unsee.data.images import Photo
from unsee.data.parquet import IMAGE
from unsee.data.records import Record, Split
from unsee.errors import ConfigError, DataError
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


def questions(image: Photo | None = PHOTO):
    return tuple(asked(who, image, form) for who in PEOPLE for form in ("choice", "cloze", "open"))


class Says(Replies):
    """Replies that are the same to every question."""

    def __init__(self, text):
        self.text = text

    def answers(self, records, stage="answers") -> list[str]:
        return [self.text for _ in records]


def of(audit, seed):
    found = published_of("published", "mllmu:x#forget_5", Split((), audit=audit), seed=seed)
    assert isinstance(found, MLLMUSheets)
    return {sheet.split: sheet for sheet in found.sheets}


def scores(text, sheets):
    return MLLMUSheets(tuple(sheets)).scores(Says(text))


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
    return of(audit, seed=3)


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
    found = scores("B, in Rome", sheets.values())
    cell = found["test"]["image classification"]
    assert (cell["value"], cell["n"], cell["chance"]) == (1.0, 3, 1.0)
    assert found["forget"]["text cloze"]["value"] == 1.0
    # "b in rome" has one word of "from rome": precision 1/3, recall 1/2.
    assert found["test"]["image rouge_1"]["value"] == pytest.approx(0.4)
    wrong = scores("A", sheets.values())
    assert wrong["test"]["image classification"]["value"] == 0.0
    assert wrong["test"]["image cloze"]["value"] == 0.0


def test_too_few_people_for_examples_is_said():
    audit = {"forget_seen": questions()[:3]}
    (sheet,) = of(audit, seed=0).values()
    assert set(sheet.left_out) == {"image choice", "image cloze"}
    cells = scores("Rome", [sheet])["forget"]
    assert "expected more than 1 people" in cells["image choice"]["not_scored"]
    assert cells["image bleu"]["n"] == 1


def test_strict_asks_nothing_more():
    assert published_of("strict", "mllmu:x#forget_5", Split(()), seed=0) is None


@pytest.mark.parametrize(
    ("protocol", "source", "line"),
    [
        ("publishd", "mllmu:x#y", "unknown protocol 'publishd'; did you mean 'published'?"),
        (
            "published",
            "",
            "expected --dataset mllmu:... or clear:..., got no benchmark; leave it out",
        ),
        (
            "published",
            "people/ada",
            "expected --dataset mllmu:... or clear:..., got people/ada; leave it out",
        ),
    ],
)
def test_a_protocol_that_does_not_apply_is_refused(protocol, source, line):
    with pytest.raises(ConfigError) as caught:
        published_of(protocol, source, Split(()), seed=0)
    assert line in str(caught.value)


class Thinks(Says):
    """Holds answers that begin with a letter to be as probable as it is told, token by token."""

    def __init__(self, text, likely):
        super().__init__(text)
        self.likely = likely

    def logprobs(self, records):
        means = np.array([np.log(self.likely[record.answer[0]]) for record in records])
        tokens = np.full(len(records), 3)
        return means * tokens, tokens


@pytest.fixture
def clear(tmp_path):
    """CLEAR's files for two people to forget, one to keep, and one real face."""
    text, texts = pa.string(), pa.list_(pa.string())
    perturbed = pa.schema(
        [
            ("image", IMAGE),
            ("caption", text),
            ("name", text),
            ("perturbed_captions", texts),
            ("paraphrased_caption", text),
            ("perturbed_names", texts),
        ]
    )
    options = [("image", IMAGE), ("question", text), ("answer", text), ("options", texts)]

    def row(number):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (number, 0, 7)).save(buffer, "PNG")
        return {
            "image": {"bytes": buffer.getvalue(), "path": None},
            "caption": "right words",
            "name": "right name",
            "perturbed_captions": ["wrong words", "worse words"],
            "paraphrased_caption": "paraphrased words",
            "perturbed_names": ["wrong name"],
        }

    def write(name, schema, *rows):
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, tmp_path / f"{name}.parquet")

    write("forget05_perturbed", perturbed, row(1), row(2))
    write("retain_perturbed", perturbed, row(3))
    face = {**row(4), "question": "Who?", "answer": "right", "options": ["right", "wrong"]}
    bare = {**face, "image": None}
    write("real_faces", pa.schema(options), face, bare)
    return tmp_path


def test_clear_by_hand_with_what_is_not_there_named(clear):
    asked = published_of("published", f"clear:{clear}#forget_5", Split(()), seed=0)
    sure = Thinks("right words", {"r": 0.8, "p": 0.8, "w": 0.2})
    table = asked.scores(sure)
    assert table["forget"]["probability"]["value"] == pytest.approx(0.8)
    assert table["forget"]["rouge"] == {"value": 1.0, "n": 2, "chance": None}
    # R = 0.2 / 0.8: to forget min(R, 1 / R), to keep 1 - R.
    assert table["forget"]["truth_ratio"]["value"] == pytest.approx(0.25)
    assert table["retain"]["truth_ratio"]["value"] == pytest.approx(0.75)
    assert table["retain_faces"]["probability"]["value"] == pytest.approx(0.8)
    assert table["real_faces"]["rouge"]["n"] == 1
    assert table["real_world"]["rouge"]["not_scored"] == f"{clear} has no real_world"
    assert table["all to keep"]["model_utility"] == {"not_scored": "not asked: real_world"}


def test_clear_compares_truth_ratios_with_gold(clear):
    asked = published_of("published", f"clear:{clear}#forget05", Split(()), seed=0)
    unsure = {"r": 0.5, "p": 0.5, "w": 0.5}
    tables = {
        "base": asked.scores(Thinks("right", {"r": 0.8, "p": 0.8, "w": 0.2})),
        "erased": asked.scores(Thinks("right", unsure)),
        "gold": asked.scores(Thinks("right", unsure)),
    }
    asked.between(tables)
    assert tables["erased"]["forget"]["forget_quality"]["value"] == 1.0
    assert tables["base"]["forget"]["forget_quality"]["value"] < 0.5
    assert "forget_quality" not in tables["gold"]["forget"]
    assert not any("truth ratios" in cells for t in tables.values() for cells in t.values())


def test_a_damaged_row_of_clear_is_named(clear):
    path = clear / "retain_perturbed.parquet"
    table = pq.read_table(path).to_pylist()
    table[0] |= {"perturbed_names": [], "caption": " "}
    pq.write_table(pa.Table.from_pylist(table, schema=pq.read_schema(path)), path)
    with pytest.raises(DataError) as caught:
        published_of("published", f"clear:{clear}#forget_5", Split(()), seed=0)
    assert str(caught.value) == (
        f"{path}: row 1: caption: expected text, got nothing; "
        "perturbed_names: expected a list of one or more texts, got []"
    )
