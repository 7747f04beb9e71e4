"""A people folder becomes the people of a world, or is refused with all of its faults."""

import json
import shutil

import pytest
from PIL import Image

from unsee.errors import DataError
from unsee.world.intake import read_photographed
from unsee.world.profiles import FIRST_NAMES, LAST_NAMES, TOPICS


@pytest.fixture
def people(tmp_path, write_photographs):
    return write_photographs(tmp_path / "people")


def refusal(folder, strangers=None):
    with pytest.raises(DataError) as refused:
        read_photographed(folder, strangers, seed=0)
    return str(refused.value)


@pytest.mark.parametrize(("photos", "held_out"), [(4, 1), (7, 1), (8, 2), (10, 2), (12, 3)])
def test_the_last_quarter_is_held_out_and_at_least_one(
    tmp_path, photos, held_out, write_photographs
):
    source = read_photographed(write_photographs(tmp_path, photos=photos), seed=0)
    for profile in source.profiles:
        given, last = source.given[profile.slug], source.held_out[profile.slug]
        assert (len(given), len(last)) == (photos - held_out, held_out)
        files = sorted((tmp_path / profile.slug).iterdir())
        for file, photo in zip(files, (*given, *last), strict=True):
            assert photo.open().tobytes() == Image.open(file).convert("RGB").tobytes()


def test_without_profiles_names_and_facts_are_fictitious(people):
    source = read_photographed(people, seed=0)
    assert [p.slug for p in source.profiles] == sorted(p.name for p in people.iterdir())
    assert [p.number for p in source.profiles] == list(range(12))
    names = [p.name.split() for p in source.profiles]
    assert {first for first, _ in names} <= set(FIRST_NAMES)
    assert {last for _, last in names} <= set(LAST_NAMES)
    assert len({first for first, _ in names}) == len({last for _, last in names}) == 12
    for profile in source.profiles:
        assert all(profile.facts[topic] in values for topic, values in TOPICS.items())
    assert source.left_out == {}


def test_more_people_than_first_names_still_get_a_name_each(tmp_path, write_photographs):
    source = read_photographed(write_photographs(tmp_path, people=70, photos=4), seed=0)
    assert len({p.name for p in source.profiles}) == 70


def test_given_profiles_are_used_and_completed(people):
    (people / "s3" / "profile.json").write_text(
        json.dumps({"name": "Ada", "birthplace": "Bath", "shoe size": "38"})
    )
    (people / "s4" / "profile.json").write_text(json.dumps({"pet": "newt", "shoe size": "40"}))
    (people / "s5").rename(people / "jane_roe")
    rows = {"question": "Who?", "answer": "Me"}
    (people / "s6" / "questions.jsonl").write_text(json.dumps(rows) + "\n")
    source = read_photographed(people, seed=0)
    by_slug = {p.slug: p for p in source.profiles}
    assert by_slug["s3"].name == "Ada"
    assert by_slug["s3"].facts["birthplace"] == "Bath"
    assert by_slug["s3"].facts["pet"] in TOPICS["pet"]
    assert by_slug["s4"].name == "S4"
    assert by_slug["s4"].facts["pet"] == "newt"
    assert by_slug["jane_roe"].name == "Jane Roe"
    assert by_slug["s6"].name != "S6"
    # What no question asks is counted, not silently dropped.
    assert source.left_out == {"profile.json: shoe size": 2, "questions.jsonl": 1}


def test_roles_are_dealt_by_seed_and_the_file_wins(people):
    roles = {p.slug: p.role for p in read_photographed(people, seed=0).profiles}
    other = {p.slug: p.role for p in read_photographed(people, seed=1).profiles}
    assert roles != other
    kept = next(slug for slug, role in roles.items() if role == "retain")
    (people / "roles.json").write_text(json.dumps({kept: "A"}))
    again = {p.slug: p.role for p in read_photographed(people, seed=0).profiles}
    assert again[kept] == "A"


def test_strangers_may_be_loose_photos(people, tmp_path, photograph):
    (tmp_path / "others").mkdir()
    for n in range(20):
        # Two files of one name are two strangers.
        photograph(100 + n, 0).save(tmp_path / "others" / f"{n // 2}.{('png', 'pgm')[n % 2]}")
    source = read_photographed(people, tmp_path / "others", seed=0)
    assert [len(photos) for photos in source.others] == [1] * 20


def test_too_few_people(tmp_path, write_photographs):
    folder = write_photographs(tmp_path / "people", people=11)
    assert refusal(folder) == (
        f"{folder}: expected 12 to 1000 people, a subfolder each, got 11; add people"
    )


def test_too_few_photos(people):
    (people / "s7" / "1.pgm").unlink()
    (people / "s7" / "2.pgm").unlink()
    assert refusal(people) == (
        f"{people / 's7'}: expected at least 4 photos, got 3; add some or remove the folder"
    )


def test_the_same_photo_twice_also_in_another_format(people):
    with Image.open(people / "s2" / "1.pgm") as picture:
        picture.save(people / "s9" / "9.png")
    shutil.copy(people / "s4" / "1.pgm", people / "s4" / "9.pgm")
    assert refusal(people) == "; ".join(
        f"{people / copy}: expected different photos, got the same as {people / first}; remove one"
        for copy, first in (("s4/9.pgm", "s4/1.pgm"), ("s9/9.png", "s2/1.pgm"))
    )


def test_a_person_is_no_stranger(people, tmp_path, write_photographs):
    others = write_photographs(tmp_path / "others", people=20, photos=1, name="t{}")
    message = refusal(people, others)
    # The same twelve pictures again.
    assert message.count("expected different photos") == 12
    assert message.startswith(
        f"{others / 't1' / '1.pgm'}: expected different photos, got the same as "
        f"{people / 's1' / '1.pgm'}; remove one; "
    )


def test_an_unreadable_photo(people):
    (people / "s5" / "2.pgm").write_bytes(b"no photo")
    assert refusal(people) == (
        f"{people / 's5' / '2.pgm'}: expected a readable jpg, png, webp or pgm image, got 8 bytes "
        "that do not decode; replace or remove the file"
    )


def test_too_few_strangers(people, tmp_path, photograph):
    others = tmp_path / "others"
    others.mkdir()
    photograph(100, 0).save(others / "1.png")
    assert refusal(people, others) == (
        f"{others}: expected photos of at least 20 strangers, got 1; add some or leave --strangers "
        "out"
    )


def test_every_fault_of_the_folder_is_said_at_once(tmp_path, write_photographs):
    folder = write_photographs(tmp_path / "people", people=11)
    (folder / "s7" / "1.pgm").unlink()
    (folder / "s7" / "2.pgm").unlink()
    (folder / "roles.json").write_text(json.dumps({"s1": "E", "s77": "A"}))
    assert refusal(folder) == "; ".join(
        [
            f"{folder}: expected 12 to 1000 people, a subfolder each, got 11; add people",
            f"{folder / 's7'}: expected at least 4 photos, got 3; add some or remove the folder",
            f"{folder / 'roles.json'}: s1: unknown role 'E'; "
            "known: retain, celebrity, A, B, C, dev",
            f"{folder / 'roles.json'}: 's77': no such folder; did you mean 's7'?",
        ]
    )


def test_roles_that_leave_a_part_to_nobody(people):
    slugs = sorted(path.name for path in people.iterdir())
    (people / "roles.json").write_text(json.dumps(dict.fromkeys(slugs, "retain")))
    message = refusal(people)
    assert message.count("expected at least one person with role") == 5
    assert message.startswith(
        f"{people / 'roles.json'}: expected at least one person with role 'celebrity', got none; "
        "give it to somebody; "
    )
