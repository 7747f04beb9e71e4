import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.data.mllmu import SCHEMAS, read_records, read_rows, row_records, write_rows
from unsee.errors import DataError


def photo(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{colour}.png"}


def choice(question):
    options = {"A": "Oslo", "B": "Rome", "C": "Bern", "D": "Kyiv"}
    return {"Question": question, "Options": options, "Correct_Answer": "B"}


def item(question, kind):
    return {"Question": question, "Ground_Truth": "Rome", "Type": kind}


def tasks(**changes):
    return {
        "ID": "7",
        "Directory": "d/7.png",
        "biography": json.dumps({"Name": "Jane"}),
        "question": "Describe.",
        "answer": "A woman.",
        "Classification_Task": {
            "Image_Textual_Questions": [choice("c1")],
            "Pure_Text_Questions": [choice("c2")],
        },
        "Generation_Task": [item("g1", "Image_Textual"), item("g2", "Pure_Text")],
        "Mask_Task": [item("lives in __", "Image_Textual")],
    } | changes


def eval_row(**changes):
    return {"image": photo("red")} | tasks(**changes)


def test_evaluation_rows_round_trip_and_become_records(tmp_path):
    path = tmp_path / "forget_5.parquet"
    row = eval_row()
    write_rows(path, [row])
    assert pq.read_schema(path).equals(SCHEMAS["eval"])
    assert list(read_rows(path)) == [row]
    records = read_records(path, set_name="forget_seen")
    assert [(r.question, r.form, r.image is not None, r.answer) for r in records] == [
        ("c1", "choice", True, "B"),
        ("c2", "choice", False, "B"),
        ("g1", "open", True, "Rome"),
        ("g2", "open", False, "Rome"),
        ("lives in __", "cloze", True, "Rome"),
    ]
    assert records[0].options == ("Oslo", "Rome", "Bern", "Kyiv")
    assert {(r.subject, r.set, r.topic) for r in records} == {("7", "forget_seen", "")}
    assert records[0].image is not None
    assert records[0].image.open().getpixel((0, 0)) == (255, 0, 0)


def test_test_set_goes_round_its_images_or_asks_on_all(tmp_path):
    path = tmp_path / "Test_Set.parquet"
    row = {"images": [photo("red"), photo("blue")]} | tasks()
    write_rows(path, [row])
    assert pq.read_schema(path).equals(SCHEMAS["test"])
    blue = row["images"][1]["bytes"]
    asked = [(r.question, r.image.data == blue) for r in read_records(path) if r.image is not None]
    assert asked == [
        ("c1", False),
        ("g1", True),
        ("lives in __", False),
    ]
    assert len(read_records(path, every_image=True)) == 3 * 2 + 2


def test_training_rows(tmp_path):
    path = tmp_path / "ft_Data.parquet"
    turns = [{"Question": "Who?", "Answer": "Jane"}, {"Question": "Where?", "Answer": "Rome"}]
    write_rows(path, [{"image": photo("red"), "ID": "7", "metadata": json.dumps(turns)}])
    records = read_records(path)
    assert [(r.subject, r.question, r.answer, r.form) for r in records] == [
        ("7", "Who?", "Jane", "open"),
        ("7", "Where?", "Rome", "open"),
    ]
    without_id = {"image": photo("red"), "metadata": json.dumps([{"ID": "8", **turns[0]}])}
    assert row_records(without_id)[0].subject == "8"


def test_rows_come_in_order_over_several_batches(tmp_path):
    path = tmp_path / "many.parquet"
    write_rows(path, (eval_row(ID=str(number)) for number in range(70)))
    assert [row["ID"] for row in read_rows(path, batch_size=8)] == [str(n) for n in range(70)]


def test_missing_column_lists_expected_and_got(tmp_path):
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({"ID": ["1"], "image": ["x"], "Mask_Task": ["x"]}), path)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert (
        "expected columns image, ID, Classification_Task, Generation_Task, Mask_Task, "
        "got ID, image, Mask_Task; missing: Classification_Task, Generation_Task" in message
    )


def test_missing_and_damaged_file(tmp_path):
    with pytest.raises(DataError, match=r"expected a parquet file .* got nothing there"):
        read_rows(tmp_path / "gone.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"bad\.parquet: expected a parquet file of MLLMU-Bench"):
        read_rows(tmp_path / "bad.parquet")


def test_all_faults_of_a_file_at_once(tmp_path):
    path = tmp_path / "faulty.parquet"
    bad_choice = choice("c") | {"Correct_Answer": "Q"}
    first = eval_row(
        ID="1",
        image={"bytes": None, "path": "x.png"},
        Classification_Task={
            "Image_Textual_Questions": [],
            "Pure_Text_Questions": [bad_choice],
        },
    )
    second = eval_row(ID="2", Mask_Task=[item("m", "Image"), item(None, "Pure_Text")])
    write_rows(path, [first, second])
    with pytest.raises(DataError) as caught:
        read_records(path)
    message = str(caught.value)
    for fault in (
        "row 1: ID '1'",
        "image 0: expected encoded bytes, got none",
        "Classification_Task.Pure_Text_Questions[0]",
        "expected a letter out of ABCD, got 'Q'",
        "row 2: ID '2'",
        "Mask_Task[0]: Type: expected Image_Textual or Pure_Text, got 'Image'",
        "Mask_Task[1]: Question: expected text, got None",
    ):
        assert fault in message


def test_metadata_that_is_no_list():
    with pytest.raises(DataError, match="metadata: expected a JSON list"):
        row_records({"image": photo("red"), "ID": "1", "metadata": "{"})


def test_writing_refuses_other_columns_and_leaves_nothing(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(DataError, match="row '7': expected columns image, ID"):
        write_rows(path, [eval_row(), eval_row(topic="x")])
    with pytest.raises(DataError, match="expected at least one row, got none"):
        write_rows(path, [])
    assert list(tmp_path.iterdir()) == []
