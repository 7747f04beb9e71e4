# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportArgumentType=false
import io
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.data.mllmu import write_rows
from unsee.errors import ConfigError, DataError
from unsee.requests import read_dataset


def photo(number):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{number}.png"}


def person(number, name, *, test=False, **changes):
    """A row as the benchmark publishes it: five questions, three of them on a photo."""
    options = {"A": "Oslo", "B": "Rome", "C": "Bern", "D": "Kyiv"}
    choice = {"Question": f"Where from, {name}?", "Options": options, "Correct_Answer": "B"}
    items = [
        {"Question": f"{kind}?", "Ground_Truth": "Rome", "Type": kind}
        for kind in ("Image_Textual", "Pure_Text")
    ]
    images = [photo(1000 + number), photo(2000 + number), photo(3000 + number)]
    return {
        **({"images": images} if test else {"image": photo(number)}),
        "ID": f"{number:03d}",
        "Directory": f"d/{number}.png",
        "biography": json.dumps({"Name": name, "Birthplace": "Rome"}),
        "question": "Describe.",
        "answer": "A person.",
        "Classification_Task": {
            "Image_Textual_Questions": [choice],
            "Pure_Text_Questions": [choice],
        },
        "Generation_Task": items,
        "Mask_Task": [{"Question": "from __", "Ground_Truth": "Rome", "Type": "Image_Textual"}],
        **changes,
    }


NAMES = {number: f"Person {number}" for number in range(10)}


@pytest.fixture
def benchmark(tmp_path):
    """All published splits of ten people and two celebrities."""
    full = [person(number, name) for number, name in NAMES.items()]
    test = [person(number, name, test=True) for number, name in NAMES.items()]
    for share, count in ((5, 1), (10, 1), (15, 2)):
        write_rows(tmp_path / f"forget_{share}.parquet", full[-count:])
        write_rows(tmp_path / f"retain_{100 - share}.parquet", full[:-count])
    write_rows(tmp_path / "Full_Set.parquet", full)
    turns = json.dumps([{"Question": "Who?", "Answer": "Jane"}])
    write_rows(
        tmp_path / "ft_Data.parquet",
        [{"image": row["image"], "ID": row["ID"], "metadata": turns} for row in full],
    )
    # As the hub cuts large splits.
    write_rows(tmp_path / "Test_Set-00000-of-00002.parquet", test[:5])
    write_rows(tmp_path / "Test_Set-00001-of-00002.parquet", test[5:])
    (tmp_path / "Retain_Set").mkdir()
    celebrities = [person(1, "Ada Star"), person(501, "Bo Star")]
    celebrities[0]["image"], celebrities[1]["image"] = photo(4001), photo(4002)
    write_rows(tmp_path / "Retain_Set" / "train-00000-of-00001.parquet", celebrities)
    return tmp_path


def test_splits_become_sides(benchmark):
    sides = read_dataset(f"mllmu:{benchmark}#forget_15")
    assert sides.source == f"mllmu:{benchmark}#forget_15"
    assert [p.name for p in sides.people["forget"]] == ["Person 8", "Person 9"]
    assert len(sides.people["retain"]) == 8
    assert [p.name for p in sides.people["celebrity"]] == ["Ada Star", "Bo Star"]
    assert not sides.people["general"]
    eight = sides.people["forget"][0]
    seen = [photo for photo in eight.photos if photo not in eight.held_out]
    assert [p.read() for p in seen] == [photo(8)["bytes"]]
    # Three questions on photos go round the three test photos.
    assert {p.read() for p in eight.held_out} == {photo(k + 8)["bytes"] for k in (1000, 2000, 3000)}
    asked = [(r.form, r.image in eight.held_out if r.image else None) for r in eight.records]
    assert asked == [
        ("choice", False),
        ("choice", None),
        ("open", False),
        ("open", None),
        ("cloze", False),
        ("choice", True),
        ("open", True),
        ("cloze", True),
    ]
    assert {r.subject for r in eight.records} == {"Person 8"}


def test_what_has_no_counterpart_is_listed(benchmark):
    sides = read_dataset(f"mllmu:{benchmark}#forget_10")
    other = {"forget_5", "forget_15", "retain_95", "retain_85"}
    assert sides.left_out.keys() == {"Full_Set", "ft_Data", *other}
    assert sides.not_scored.keys() == {"refusal"}
    assert sides.whole


def test_without_test_set_and_celebrities(benchmark):
    for path in [*benchmark.glob("Test_Set*"), *benchmark.glob("Retain_Set/*")]:
        path.unlink()
    sides = read_dataset(f"mllmu:{benchmark}#forget_5")
    assert sides.not_scored["forget_unseen"] == (
        f"{benchmark} has no Test_Set, and so no other photos of them"
    )
    assert sides.not_scored["celebrity"] == f"{benchmark} has no Retain_Set"
    assert all(p.held_out == () for side in ("forget", "retain") for p in sides.people[side])


def test_celebrities_who_are_given_are_left_out_and_counted(benchmark):
    path = benchmark / "Retain_Set" / "train-00000-of-00001.parquet"
    write_rows(path, [person(2, "Person 2"), person(501, "Bo Star")])
    sides = read_dataset(f"mllmu:{benchmark}#forget_5")
    assert [p.name for p in sides.people["celebrity"]] == ["Bo Star"]
    assert sides.left_out["Retain_Set"] == "1 of 2 people, who are in forget_5 or retain_95"


def test_people_of_one_name_and_of_none(benchmark):
    rows = [person(7, "Twin"), person(8, "Twin"), person(9, "", biography="no JSON")]
    write_rows(benchmark / "forget_5.parquet", rows)
    write_rows(benchmark / "retain_95.parquet", [person(1, "Person 1")])
    names = [p.name for p in read_dataset(f"mllmu:{benchmark}#forget_5").people["forget"]]
    assert names == ["Twin (007)", "Twin (008)", "009"]


def test_missing_split_lists_those_there_are(benchmark):
    with pytest.raises(ConfigError) as caught:
        read_dataset(f"mllmu:{benchmark}#forget_20")
    assert str(caught.value) == (
        f"mllmu:{benchmark}#forget_20: no such split; did you mean 'forget_10'? (splits there: "
        "Full_Set, Test_Set, forget_10, forget_15, forget_5, ft_Data, retain_85, retain_90, "
        "retain_95, Retain_Set)"
    )
    (benchmark / "retain_90.parquet").unlink()
    with pytest.raises(DataError, match="expected retain_90 beside it, got Full_Set, Test_Set, f"):
        read_dataset(f"mllmu:{benchmark}#forget_10")


def test_missing_column_lists_those_there_are(benchmark):
    path = benchmark / "forget_5.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["Mask_Task"]), path)
    with pytest.raises(DataError, match=r"forget_5\.parquet: expected columns .*, got .*Generation"
                       r"_Task; missing: Mask_Task"):  # fmt: skip
        read_dataset(f"mllmu:{benchmark}#forget_5")


def test_all_faults_of_all_files_at_once(benchmark):
    write_rows(benchmark / "forget_5.parquet", [person(9, "P", image={"bytes": b"x", "path": ""})])
    bad = [{"Question": "Q", "Ground_Truth": "A", "Type": "Image"}]
    write_rows(benchmark / "retain_95.parquet", [person(1, "Q"), person(2, "R", Mask_Task=bad)])
    with pytest.raises(DataError) as caught:
        read_dataset(f"mllmu:{benchmark}#forget_5")
    first, second = caught.value.args
    assert first.startswith(f"{benchmark}/forget_5.parquet: row 1: ID '009': image 0: photo ")
    assert "expected a readable jpg, png, webp or pgm image, got 1 bytes" in first
    assert second.startswith(f"{benchmark}/retain_95.parquet: row 2: ID '002': Mask_Task[0]: Type")


def broken(number, name, **changes):
    return person(number, name, image={"bytes": b"x", "path": ""}, **changes)


def test_photos_that_do_not_decode_are_counted_listed_and_bounded(benchmark):
    rows = [person(1, "Q"), broken(2, "R"), broken(3, "S")]
    write_rows(benchmark / "retain_95.parquet", rows)
    reference = f"mllmu:{benchmark}#forget_5"
    with pytest.raises(DataError) as caught:
        read_dataset(reference, unreadable=1)
    first, second, bound = caught.value.args
    assert first.startswith(f"{benchmark}/retain_95.parquet: row 2: ID '002': image 0: photo ")
    assert second.startswith(f"{benchmark}/retain_95.parquet: row 3: ")
    assert bound == (
        "expected at most 1 photos that do not decode, got 2; replace them, or leave their rows "
        "out with --set unreadable=2"
    )
    sides = read_dataset(reference, unreadable=2)
    assert [one.name for one in sides.people["retain"]] == ["Q"]
    assert sides.unreadable == (first, second)
    bad = [{"Question": "Q", "Ground_Truth": "A", "Type": "Image"}]
    write_rows(benchmark / "retain_95.parquet", [*rows, broken(4, "T", Mask_Task=bad)])
    with pytest.raises(DataError) as caught:
        read_dataset(reference, unreadable=9)
    assert len(caught.value.args) == 3
    assert "image 0: photo " in caught.value.args[2]
    assert caught.value.args[2].endswith("expected Image_Textual or Pure_Text, got 'Image'")


def test_a_split_of_which_nobody_is_left(benchmark):
    path = benchmark / "forget_5.parquet"
    nobody = (
        f"mllmu:{benchmark}#forget_5: expected somebody to forget, got no row that can be used; "
        "choose another split, or copy the files again"
    )
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError) as caught:
        read_dataset(f"mllmu:{benchmark}#forget_5")
    assert str(caught.value) == nobody
    write_rows(path, [broken(9, "P")])
    with pytest.raises(DataError) as caught:
        read_dataset(f"mllmu:{benchmark}#forget_5", unreadable=1)
    assert str(caught.value) == nobody


def test_options_whose_letters_leave_one_out(benchmark):
    options = {"A": "Oslo", "B": None, "C": "Bern", "D": "Kyiv"}
    asked = {"Question": "Where?", "Options": options, "Correct_Answer": "A"}
    tasks = {"Image_Textual_Questions": [asked], "Pure_Text_Questions": []}
    write_rows(benchmark / "forget_5.parquet", [person(9, "P", Classification_Task=tasks)])
    with pytest.raises(DataError) as caught:
        read_dataset(f"mllmu:{benchmark}#forget_5")
    assert str(caught.value) == (
        f"{benchmark}/forget_5.parquet: row 1: ID '009': "
        "Classification_Task.Image_Textual_Questions[0]: Options: expected letters from A on, "
        "got A, C, D"
    )


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("mllmu", "expected NAME:PATH#SPLIT, such as mllmu:data/MLLMU-Bench#forget_10"),
        ("mllmu:data", "expected NAME:PATH#SPLIT, such as "),
        ("mlmu:data#forget_5", "unknown benchmark 'mlmu'; did you mean 'mllmu'?"),
    ],
)
def test_references_that_name_no_benchmark(reference, fault):
    with pytest.raises(ConfigError) as caught:
        read_dataset(reference)
    assert str(caught.value).startswith(f"--dataset {reference}: {fault}")


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="expected a folder with MLLMU-Bench's files, got nothing"):
        read_dataset(f"mllmu:{tmp_path / 'gone'}#forget_5")
