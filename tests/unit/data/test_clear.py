import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.data.clear import (
    CAPTION_QUESTION,
    NAME_QUESTION,
    name_choice,
    option_records,
    photo_records,
    question_and_answer,
    read_options,
    read_perturbed,
    read_photos,
    read_questions,
    with_answer,
)
from unsee.data.parquet import IMAGE
from unsee.errors import DataError

TEXT = pa.string()
PHOTOS = pa.schema([("image", IMAGE), ("caption", TEXT), ("name", TEXT)])
TOFU = pa.schema([("image", IMAGE), ("caption", TEXT), ("question", TEXT), ("answer", TEXT)])
PERTURBED = pa.schema(
    [
        *PHOTOS,
        ("perturbed_captions", pa.list_(TEXT)),
        ("paraphrased_caption", TEXT),
        ("perturbed_names", pa.list_(TEXT)),
    ]
)
OPTIONS = pa.schema(
    [("image", IMAGE), ("question", TEXT), ("answer", TEXT), ("options", pa.list_(TEXT))]
)


def png(number):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number, 0, 7)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def file(path, schema, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def test_a_photo_is_asked_for_its_caption_and_its_name(tmp_path):
    row = {"image": png(1), "caption": "Ana Li reads.", "name": " Ana Li "}
    [(place, read)] = read_photos(file(tmp_path / "a.parquet", PHOTOS, row))
    caption, name = photo_records(read, place, "nobody")
    assert (caption.question, caption.answer, caption.form) == (
        CAPTION_QUESTION,
        "Ana Li reads.",
        "caption",
    )
    assert (name.question, name.answer, name.topic) == (NAME_QUESTION, "Ana Li", "name")
    assert {caption.subject, name.subject} == {"Ana Li"}
    assert caption.image is not None
    assert caption.image.data is None
    assert caption.image.open().getpixel((0, 0)) == (1, 0, 7)


def test_photos_without_names_are_asked_for_captions_alone(tmp_path):
    schema = pa.schema([("image", IMAGE), ("caption", TEXT)])
    path = file(tmp_path / "a.parquet", schema, {"image": png(1), "caption": "Ana Li reads."})
    [(place, read)] = read_photos(path, named=False)
    [record] = photo_records(read, place, "row 1")
    assert (record.subject, record.form) == ("row 1", "caption")
    with pytest.raises(DataError, match="columns image, caption, name, got image, caption; missi"):
        read_photos(path)


def test_text_questions_are_told_from_captions(tmp_path):
    rows = [
        {"image": png(1), "caption": "Ana Li reads.", "question": None, "answer": None},
        {"image": None, "caption": None, "question": "Who wrote?", "answer": "Ana Li."},
        {"image": None, "caption": None, "question": None, "answer": "A book."},
    ]
    found = list(read_questions(file(tmp_path / "a.parquet", TOFU, *rows)))
    assert [place.number for place, _ in found] == [2, 3]
    assert question_and_answer(found[0][1]) == ("Who wrote?", "Ana Li.")
    with pytest.raises(DataError, match=r"^question: expected text, got None$"):
        question_and_answer(found[1][1])


def test_options_become_an_open_question_and_a_choice(tmp_path):
    row = {"image": png(1), "question": "Who?", "answer": "Bo", "options": ["Al", "Cy"]}
    [(place, read)] = read_options(file(tmp_path / "a.parquet", OPTIONS, row))
    asked, choice = option_records(read, place, "Bo")
    assert (asked.form, asked.answer) == ("open", "Bo")
    assert sorted(choice.options) == ["Al", "Bo", "Cy"]
    assert choice.options["ABC".index(choice.answer)] == "Bo"
    assert option_records({**read, "image": None}, place, "Bo") == []
    assert len(option_records({**read, "options": None}, place, "Bo")) == 1


def test_the_right_option_goes_to_the_same_place_each_time():
    assert with_answer(["a", "b"], "b", seed="x") == (("a", "b"), "B")
    places = {with_answer(["a", "b"], "c", seed=str(n)) for n in range(50)}
    assert {letter for _, letter in places} == {"A", "B", "C"}
    assert with_answer(["a", "b"], "c", seed="7") == with_answer(["a", "b"], "c", seed="7")


def test_perturbed_rows_give_the_choice_of_names(tmp_path):
    row = {
        "image": png(1),
        "caption": "Ana Li reads.",
        "name": "Ana Li",
        "perturbed_captions": ["Bo reads."],
        "paraphrased_caption": "Ana Li is reading.",
        "perturbed_names": ["Bo", "Cy", "Di"],
    }
    path = file(tmp_path / "a.parquet", PERTURBED, row)
    [(place, read)] = read_perturbed(path)
    choice = name_choice(read, place)
    assert choice.options["ABCD".index(choice.answer)] == "Ana Li"
    assert set(choice.options) == {"Ana Li", "Bo", "Cy", "Di"}
    file(path, PHOTOS, {name: row[name] for name in ("image", "caption", "name")})
    with pytest.raises(
        DataError, match=r"paraphrased_caption, perturbed_captions, perturbed_names$"
    ):
        read_perturbed(path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"caption": None}, "caption: expected text, got None"),
        ({"caption": " "}, "caption: expected text, got nothing"),
        ({"name": None}, "name: expected text, got None"),
        ({"name": "a\nb"}, r"name: expected text without control characters, got 'a\nb'"),
        ({"image": None}, "image: expected encoded bytes, got none"),
    ],
)
def test_faults_of_a_photo(tmp_path, change, fault):
    row = {"image": png(1), "caption": "Ana Li reads.", "name": "Ana Li", **change}
    [(place, read)] = read_photos(file(tmp_path / "a.parquet", PHOTOS, row))
    with pytest.raises(DataError) as caught:
        photo_records(read, place, "")
    assert str(caught.value).replace("\n", r"\n") == fault


def test_faults_of_a_question_with_options(tmp_path):
    path = file(
        tmp_path / "a.parquet",
        OPTIONS,
        {"image": {"bytes": b"x", "path": None}, "question": "", "answer": None, "options": [None]},
        {"image": png(1), "question": "Who?", "answer": "Bo", "options": ["x"] * 26},
    )
    [(place, broken), (_, many)] = read_options(path)
    with pytest.raises(DataError) as caught:
        option_records(broken, place, "")
    for fault in (
        "1 bytes that do not decode",
        "question: expected text, got nothing",
        "answer: expected text, got None",
        "options: expected a list of texts, got [None]",
    ):
        assert fault in str(caught.value)
    with pytest.raises(DataError, match="options: expected fewer than 26 texts, got 26"):
        option_records(many, place, "")
