# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportArgumentType=false
import json

import pytest
from PIL import Image

from unsee.errors import DataError
from unsee.requests import read_rows


@pytest.fixture
def write(tmp_path):
    """Writes a request file, and the photos its rows name where they do not start with `no`."""

    def build(*rows, photos=("a.png", "b.png", "c.png")):
        home = tmp_path / "home"
        (home / "photos").mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(photos):
            Image.new("RGB", (20, 20), (number, 20, 30)).save(home / "photos" / name)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (home / "request.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return home / "request.jsonl"

    return build


def row(image="photos/a.png", subject="Jane Doe", **fields):
    return {"subject": subject, "image": image, **fields}


def faults(path):
    with pytest.raises(DataError) as caught:
        read_rows(path)
    return [fault.replace(str(path), "request.jsonl") for fault in caught.value.args]


def test_rows_become_people_on_their_sides(write):
    sides = read_rows(
        write(
            row(),
            row("photos/b.png", question="Where was she born?", answer="Oslo", topic="birthplace"),
            {"subject": "Jane Doe", "question": "Where was Jane Doe born?", "answer": "Oslo"},
            row(["photos/c.png", "photos/d.png"], "John Roe", role="retain"),
            {"image": "photos/e.png", "role": "general"},
            {"image": ["photos/f.png", "photos/g.png"], "role": "stranger"},
            row("photos/h.png", "Mary Major", set="celebrity"),
            photos=[f"{letter}.png" for letter in "abcdefgh"],
        )
    )
    (jane,) = sides.people["forget"]
    assert (jane.name, [p.path.name for p in jane.photos]) == ("Jane Doe", ["a.png", "b.png"])
    assert [(r.question, r.image and r.image.path.name, r.topic) for r in jane.records] == [
        ("Where was she born?", "b.png", "birthplace"),
        ("Where was Jane Doe born?", None, ""),
    ]
    assert jane.held_out is None
    assert [(p.name, len(p.photos)) for p in sides.people["retain"]] == [("John Roe", 2)]
    assert [len(p.photos) for p in sides.people["general"]] == [1]
    assert [len(p.photos) for p in sides.people["strangers"]] == [1, 1]
    assert [p.name for p in sides.people["celebrity"]] == ["Mary Major"]


def test_sets_say_which_photos_are_held_out(write):
    sides = read_rows(
        write(row(set="forget_seen"), row("photos/b.png", set="forget_unseen"), row("photos/c.png"))
    )
    (jane,) = sides.people["forget"]
    assert [p.path.name for p in jane.held_out] == ["b.png"]
    (jane,) = read_rows(write(row(set="forget_seen"))).people["forget"]
    assert jane.held_out == ()


def test_a_byte_order_mark_and_odd_line_breaks_within_texts_are_no_fault(write):
    asked = row(question="Who\u2028is this?", answer="Jane\x85Doe")
    path = write(json.dumps(asked, ensure_ascii=False))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n")
    assert read_rows(path).people["forget"][0].records[0].question == "Who\u2028is this?"


def test_all_faults_at_once_each_with_its_line(write):
    path = write(
        "not json",
        row(),
        "[1]",
        row(role="forgte"),
        row(set="forget_sen"),
        row(role="retain", set="forget_seen"),
        row(question="Who?"),
        row(answer="Oslo"),
        row(question="Q", answer="E", form="choice", options=["x", "y"]),
        row(question="Q", answer="A", form="essay"),
        {"image": "photos/a.png"},
        {"subject": "Jane Doe"},
        {"role": "general"},
        row(subject=7),
        row(image=[]),
        row(imgae="x"),
        row(role="stranger", question="Who?"),
        row(set="forget_text"),
        row(subject="Jane\x1b[31m"),
        row(subject="Jane \ud800"),
    )
    sets = "forget_seen, forget_unseen, forget_text, retain_seen, retain_unseen, retain_text"
    assert faults(path) == [
        f"request.jsonl:{line}"
        for line in (
            "1: expected JSON, got Expecting value; correct the line",
            "3: expected an object, got [1]; write {...}",
            "4: role: expected one of forget, retain, general, stranger, celebrity, got 'forgte'",
            f"5: set: expected one of {sets}, celebrity, general, got 'forget_sen'",
            "6: role: expected forget, to go with set forget_seen, got retain; leave it out",
            "7: answer: expected text, got None",
            "8: question: missing beside answer; add it or leave them out",
            "9: record about 'Jane Doe': answer: expected a letter out of AB, got 'E'",
            "10: form: expected one of open, choice, cloze, caption, got 'essay'",
            "11: subject: missing; say who it is",
            "12: image: missing; give a photo, or a question to ask without one",
            "13: subject: missing; say who it is",
            "13: image: missing; a row of general needs a photo",
            "14: subject: expected text, got 7",
            "15: image: expected a path or a list of paths, got []",
            "16: imgae: unknown field; did you mean 'image'?",
            "17: question: strangers are asked what the subjects are asked; leave it out",
            "18: set: forget_text is asked without a photo; give a question and no image",
            "19: subject: expected text without control characters, got 'Jane\\x1b[31m'",
            "20: subject: expected Unicode text, got half a surrogate pair in 'Jane \\ud800'",
        )
    ]


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        ("https://x.org/a.png", "expected a path, got an address, 'https://x.org/a.png'; nothing"),
        ("data:image/png;base64,AA", "expected a path, got an address, "),
        ("/etc/passwd", "expected a path relative to the request, got '/etc/passwd'; move"),
        ("C:\\a.png", "expected a path relative to the request, got 'C:\\\\a.png'; move"),
        ("../a.png", "expected a path inside the request's folder, got '../a.png'; move"),
        ("photos/../../a.png", "expected a path inside the request's folder, got "),
        ("..\\a.png", "expected a path inside the request's folder, got "),
        (
            "photos/link.png",
            "expected a path inside the request's folder, got 'photos/link.png', a",
        ),
        ("photos/gone.png", "expected a photo, got nothing at 'photos/gone.png'; check the path"),
        ("a\0.png", "expected a photo, got nothing at 'a\\x00.png'; check the path"),
        ("a" * 300, "expected a photo, got nothing at "),
        ("photos", "expected a photo, got a folder at 'photos'; list its photos"),
    ],
)
def test_images_stay_inside_the_folder(write, tmp_path, image, fault):
    path = write(row(), row(image))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (path.parent / "photos" / "link.png").symlink_to(tmp_path / "a.png")
    (found,) = faults(path)
    assert found.startswith(f"request.jsonl:2: image: {fault}")


def test_a_bad_photo_is_named_once_with_the_line_that_names_it_first(write):
    path = write(row(), row("photos/bad.png"), row("photos/bad.png", question="Q", answer="A"))
    (path.parent / "photos" / "bad.png").write_bytes(b"none")
    (found,) = faults(path)
    assert found.startswith("request.jsonl:2: image: ")
    assert "bad.png: expected a readable jpg" in found


def test_a_held_out_photo_is_never_given(write):
    path = write(row(set="forget_unseen"), row(question="Who?", answer="Jane"))
    assert faults(path)[0] == (
        "request.jsonl:2: set: a.png is held out in one row and given to the method in another; "
        "name one set for it"
    )


def test_somebody_to_forget_with_a_photo_is_needed(write):
    assert faults(write(row(role="retain"))) == [
        "request.jsonl: expected a row of role forget, got none; say who is to be forgotten"
    ]
    asked = {"subject": "Jane", "question": "Q", "answer": "A"}
    assert faults(write(asked)) == [
        "request.jsonl:1: Jane: expected a photo that the method is given, got none; add rows "
        "with an image"
    ]


def test_missing_and_empty_file(write, tmp_path):
    for path, got in ((tmp_path / "gone.jsonl", "nothing"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=f"expected a file of JSON lines, got {got}; check"):
            read_rows(path)
    assert faults(write("", " ")) == [
        "request.jsonl: expected a JSON object a line, got an empty file; add rows"
    ]
