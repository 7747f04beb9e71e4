import json
import os

import pytest
from PIL import Image

from unsee.data.people import read_people, write_person
from unsee.errors import DataError


def face(colour=(10, 20, 30)):
    return Image.new("RGB", (20, 24), colour)


def names(person):
    return [photo.name.rpartition("/")[2] for photo in person.photos]


def add(folder, *photos, profile=None, questions=None):
    folder.mkdir(parents=True)
    for name in photos:
        face().save(folder / name)
    if profile is not None:
        (folder / "profile.json").write_text(profile)
    if questions is not None:
        (folder / "questions.jsonl").write_text(questions)


def test_reads_people_in_order_with_names_from_profile_or_folder(tmp_path):
    add(tmp_path / "tom-o_hara", "b.JPG", "a.png")
    add(tmp_path / "jane", "x.webp", profile='{"name": "Jane Doe", "birthplace": "Oslo"}')
    (tmp_path / ".DS_Store").write_bytes(b"")
    jane, tom = read_people(tmp_path)
    assert (jane.name, jane.slug) == ("Jane Doe", "jane")
    assert jane.profile == {"name": "Jane Doe", "birthplace": "Oslo"}
    assert jane.records == ()
    assert (tom.name, tom.slug) == ("Tom O Hara", "tom-o_hara")
    assert tom.profile == {"name": "Tom O Hara"}
    assert names(tom) == ["a.png", "b.JPG"]


def test_questions_are_asked_on_every_photo_or_as_text(tmp_path):
    rows = [
        {"question": "Who?", "answer": "Jane", "topic": "name"},
        {"question": "Where?", "answer": "B", "form": "choice", "options": ["Rome", "Oslo"]},
        {"question": "Where was Jane born?", "answer": "Oslo", "image": False},
    ]
    add(tmp_path / "jane", "a.png", "b.png", questions="\n\n".join(map(json.dumps, rows)))
    (jane,) = read_people(tmp_path)
    asked = [
        (r.question, r.image and r.image.name.rpartition("/")[2], r.form) for r in jane.records
    ]
    assert asked == [
        ("Who?", "a.png", "open"),
        ("Who?", "b.png", "open"),
        ("Where?", "a.png", "choice"),
        ("Where?", "b.png", "choice"),
        ("Where was Jane born?", None, "open"),
    ]
    assert jane.records[0].topic == "name"
    assert {r.subject for r in jane.records} == {"Jane"}


def test_folder_of_photos_is_one_person(tmp_path):
    add(tmp_path / "mary_ann", "a.png")
    (mary,) = read_people(tmp_path / "mary_ann")
    assert (mary.name, mary.slug, len(mary.photos)) == ("Mary Ann", "mary_ann", 1)


def test_written_person_reads_back(tmp_path):
    profile = {"name": "Åse Ø", "pet": "a dog"}
    question = {"question": "Which pet?", "answer": "a dog", "topic": "pet", "image": False}
    write_person(
        tmp_path / "people" / "ase", profile=profile, photos=[face(), face((9, 9, 9))],
        questions=[question],
    )  # fmt: skip
    (person,) = read_people(tmp_path / "people")
    assert person.profile == profile
    assert names(person) == ["photo_00.png", "photo_01.png"]
    assert person.photos[1].open().getpixel((0, 0)) == (9, 9, 9)
    assert (person.records[0].question, person.records[0].topic) == ("Which pet?", "pet")


def test_missing_empty_or_a_file(tmp_path):
    with pytest.raises(DataError, match=r"gone: expected a folder .* got nothing; check the path"):
        read_people(tmp_path / "gone")
    with pytest.raises(DataError, match="got an empty folder; add people/<name>/ with jpg"):
        read_people(tmp_path)
    (tmp_path / "f").write_text("")
    with pytest.raises(DataError, match="got a file"):
        read_people(tmp_path / "f")


def test_person_without_photos(tmp_path):
    add(tmp_path / "jane", profile='{"name": "Jane Doe"}')
    with pytest.raises(
        DataError, match=r"jane: expected at least one photo .* got none; add photos of Jane Doe"
    ):
        read_people(tmp_path)


def test_all_faults_of_a_folder_at_once_with_file_and_line(tmp_path):
    add(
        tmp_path / "jane",
        "a.png",
        profile='{"name": "J",\n "pet": }',
        questions='{"question": "Who?", "answer": "J"}\n{"question": 3}\nnot json\n'
        '{"question": "Q", "answer": "E", "form": "choice", "options": ["x", "y"]}\n'
        '{"question": "Q", "answer": "A", "form": "essay"}\n',
    )
    (tmp_path / "jane" / "b.jpg").write_bytes(b"broken")
    (tmp_path / "jane" / "c.heic").write_bytes(b"phone")
    add(tmp_path / "tom", profile='{"pet": 3}')
    (tmp_path / "stray.txt").write_text("")
    with pytest.raises(DataError) as caught:
        read_people(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for fault in (
        "profile.json:2: expected JSON",
        "questions.jsonl:2: question: expected text, got 3; answer: expected text, got None",
        "questions.jsonl:3: expected JSON",
        "questions.jsonl:4: record about 'Jane': answer: expected a letter out of AB, got 'E'",
        "questions.jsonl:5: form: expected one of open, choice, cloze, caption, got 'essay'",
        "b.jpg: expected a readable jpg",
        "c.heic: expected jpg, png, webp or pgm photos",
        "tom: expected at least one photo",
        "profile.json: pet: expected text, got 3",
        "stray.txt: expected a subfolder a person, got a file",
    ):
        assert fault in message


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            b"jan\xe9",
            r"expected a folder name in UTF-8 without control characters, got 'jan\udce9'; rena",
        ),
        (
            b"jane\ndoe",
            r"got 'jane\ndoe'; rename it, or set a UTF-8 locale such as LC_ALL=C.UTF-8",
        ),
        (b"_-_", r"_-_: expected a name, got '_-_'; rename it after the person"),
    ],
)
def test_a_folder_whose_name_is_nobodys(tmp_path, name, fault):
    add(tmp_path / os.fsdecode(name), "a.png")
    with pytest.raises(DataError) as caught:
        read_people(tmp_path)
    assert fault in str(caught.value)


def test_unknown_question_field(tmp_path):
    add(tmp_path / "jane", "a.png", questions='{"question": "Q", "answer": "A", "kind": "open"}')
    with pytest.raises(DataError, match=r"questions\.jsonl:1: kind: unknown field; fields are"):
        read_people(tmp_path)


def test_same_name_twice(tmp_path):
    add(tmp_path / "a", "a.png", profile='{"name": "Jane"}')
    add(tmp_path / "b", "a.png", profile='{"name": "Jane"}')
    with pytest.raises(DataError, match="Jane: expected one folder a person, got a, b"):
        read_people(tmp_path)


def test_many_faults_are_counted(tmp_path):
    for number in range(25):
        add(tmp_path / f"p{number:02d}")
    with pytest.raises(DataError, match=r"and 5 more faults$"):
        read_people(tmp_path)
