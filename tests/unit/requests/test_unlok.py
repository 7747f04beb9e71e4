import dataclasses
import json

import pytest
from PIL import Image

from unsee.data.images import Photo
from unsee.data.people import Person
from unsee.errors import ConfigError, DataError
from unsee.replies import StandIns
from unsee.requests import from_people, read_dataset


def entry(number, image, **changes):
    return {
        "id": number,
        "src": f"Who made number {number}?",
        "pred": f"maker {number}",
        "loc": ["nq question: What colour is it?", "Is it day?"],
        "loc_ans": ["red", "yes"],
        "image_id": image,
        "rephrase": ["By whom was it made?"],
        **changes,
    }


ENTRIES = [
    entry(4, 42),
    entry(12, 43),
    entry(13, 43),
    entry(4973, 44, loc="Is it day?", loc_ans="no"),
]


@pytest.fixture
def benchmark(tmp_path):
    """Four questions on three photos, which lie as COCO names them."""
    (tmp_path / "UnLOK-VQA.json").write_text(json.dumps(ENTRIES))
    for number, (home, name) in enumerate(
        (
            ("", "000000000042.jpg"),
            ("train2014", "COCO_train2014_000000000043.jpg"),
            ("val2017", "000000000044.jpg"),
        )
    ):
        (tmp_path / home).mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(tmp_path / home / name)
    return tmp_path


def test_named_questions_are_forgotten_and_all_others_kept(benchmark):
    sides = read_dataset(f"unlok:{benchmark}#12")
    assert sides.source == f"unlok:{benchmark}#12"
    [one] = sides.people["forget"]
    assert (one.name, one.held_out) == ("UnLOK-VQA 12", ())
    assert [photo.name for photo in one.photos] == [
        str(benchmark / "train2014" / "COCO_train2014_000000000043.jpg")
    ]
    assert [(r.question, r.answer, r.topic) for r in one.records] == [
        ("Who made number 12?", "maker 12", ""),
        ("What colour is it?", "red", "visible:neighbourhood"),
        ("Is it day?", "yes", "visible:neighbourhood"),
    ]
    kept = sides.people["retain"]
    assert [p.name for p in kept] == ["UnLOK-VQA photo 42", "UnLOK-VQA photo 44"]
    assert {r.subject for r in kept[1].records} == {"UnLOK-VQA photo 44"}
    assert [r.answer for r in kept[1].records] == ["maker 4973", "no"]
    assert sides.left_out["same photo"] == "1 other questions on a photo of those to forget"
    assert "rephrased" in sides.left_out
    assert sides.not_scored.keys() == {"forget_text", "retain_text", "celebrity", "refusal"}
    assert [(r.subject, r.question, r.answer) for r in one.asked_only] == [
        ("UnLOK-VQA 12", "By whom was it made?", "maker 12")
    ]


def test_a_file_without_questions_in_other_words(benchmark):
    rows = [{k: v for k, v in row.items() if k != "rephrase"} for row in ENTRIES]
    (benchmark / "UnLOK-VQA.json").write_text(json.dumps(rows))
    sides = read_dataset(f"unlok:{benchmark}#12")
    assert sides.people["forget"][0].asked_only == ()
    assert sides.not_scored["forget_unseen"] == (
        "UnLOK-VQA has one photo a question, and this file no field rephrase"
    )


def test_several_questions_and_questions_on_one_photo(benchmark):
    sides = read_dataset(f"unlok:{benchmark / 'UnLOK-VQA.json'}#4, 4973")
    assert [p.slug for p in sides.people["forget"]] == ["4", "4973"]
    [kept] = sides.people["retain"]
    assert [r.answer for r in kept.records if not r.topic] == ["maker 12", "maker 13"]
    assert len(kept.photos) == 1


def test_a_question_that_is_not_there(benchmark):
    with pytest.raises(ConfigError) as caught:
        read_dataset(f"unlok:{benchmark}#4,497")
    assert str(caught.value) == (
        f"unlok:{benchmark}#4,497: no question '497'; did you mean '4973'?"
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": None}, "id: expected a number, got None"),
        ({"src": 3}, "src: expected text, got 3"),
        ({"pred": " "}, "pred: expected text, got nothing"),
        ({"image_id": "a"}, "image_id: expected a number, got 'a'"),
        ({"loc": 3}, "loc: expected a list of texts, got 3"),
        ({"rephrase": [7]}, "rephrase: expected a list of texts, got [7]"),
        ({"loc_ans": ["red"]}, "loc_ans: expected 2 answers, one a question, got 1"),
        ({"image_id": 7}, "image_id: expected 000000000007.jpg in {home} or one of its subfolders, "
                          "got none; copy COCO's photos there"),
    ],
)  # fmt: skip
def test_faults_name_file_and_row(benchmark, change, fault):
    path = benchmark / "UnLOK-VQA.json"
    path.write_text(json.dumps([*ENTRIES, entry(20, 42, **change)]))
    with pytest.raises(DataError) as caught:
        read_dataset(f"unlok:{benchmark}#12")
    assert str(caught.value) == f"{path}: row 5: " + fault.format(home=benchmark)


def test_faults_are_counted_and_bounded(benchmark):
    path = benchmark / "UnLOK-VQA.json"
    path.write_text(json.dumps([*ENTRIES, *(entry(n, n) for n in range(100, 130))]))
    with pytest.raises(DataError) as caught:
        read_dataset(f"unlok:{benchmark}#12")
    assert len(caught.value.args) == 21
    assert caught.value.args[20] == "and 10 more faults"


def test_a_photo_that_does_not_decode(benchmark):
    (benchmark / "000000000042.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"row 1: .*042\.jpg: expected a readable jpg, png, webp"):
        read_dataset(f"unlok:{benchmark}#12")
    sides = read_dataset(f"unlok:{benchmark}#12", unreadable=1)
    assert len(sides.unreadable) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[", ":1: expected JSON, got Expecting value; copy it again"),
        ("{}", ": expected a JSON list of objects, got {}"),
        ('[{"id": 1, "src": "?"}]', ": expected fields id, src, pred, loc, loc_ans, image_id, got "
                                   "id, src; missing: pred, loc, loc_ans, image_id"),
    ],
)  # fmt: skip
def test_files_that_hold_something_else(benchmark, text, fault):
    path = benchmark / "UnLOK-VQA.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_dataset(f"unlok:{benchmark}#12")
    assert str(caught.value) == f"{path}{fault}"


def test_no_file(benchmark, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match=r"expected UnLOK-VQA\.json, or one \.json file, got none"):
        read_dataset(f"unlok:{empty}#1")
    with pytest.raises(DataError, match=r"expected UnLOK-VQA\.json or its folder, got nothing"):
        read_dataset(f"unlok:{empty / 'gone'}#1")
    (benchmark / "UnLOK-VQA.json").rename(benchmark / "train.json")
    assert read_dataset(f"unlok:{benchmark}#12").people["forget"]


def test_the_request_fills_our_sets(benchmark):
    path = benchmark / "stranger.jpg"
    Image.new("RGB", (16, 16), (9, 9, 200)).save(path)
    stranger = Person("stranger", "stranger", (Photo(path=path),))
    sides = read_dataset(f"unlok:{benchmark}#12,4").joined({"general": [stranger]})
    request = from_people(sides, base=StandIns(), force=True)
    split = request.split
    assert [r.question for r in split.forget] == ["Who made number 4?", "Who made number 12?"]
    assert split.audit["forget_seen"] == tuple(
        dataclasses.replace(r, set="forget_seen") for r in split.forget
    )
    # Whatever is asked in other words no method is given, and attacks have something to start from.
    others = split.audit["forget_unseen"]
    assert [(r.subject, r.question, r.form) for r in others] == [
        (f"UnLOK-VQA {key}", "By whom was it made?", "open") for key in (4, 12)
    ]
    assert "By whom was it made?" not in {
        r.question for side in (split.forget, split.visible, split.retain) for r in side
    }
    near = [r for r in split.visible if r.topic == "visible:neighbourhood"]
    assert [(r.subject, r.question) for r in near] == [
        (f"UnLOK-VQA {key}", question)
        for key in (4, 12)
        for question in ("What colour is it?", "Is it day?")
    ]
    assert {r.subject for r in split.retain} == {"UnLOK-VQA photo 44"}
    assert request.not_scored["forget_text"] == "UnLOK-VQA asks on photos alone"
