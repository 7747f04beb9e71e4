import shutil

import pytest

from unsee.data.people import write_person
from unsee.errors import ConfigError, DataError
from unsee.requests import from_folders


def test_a_request_holds_out_photos_and_wordings(knowing, request_of_people):
    request = request_of_people(knowing)
    assert request.subjects == ("Jane Doe",)
    assert request.reference == "strangers"
    assert not request.not_measurable
    assert {probe.topic for probe in request.probes if probe.known} == {"name", "birthplace"}
    given = {record.image for record in request.split.forget}
    held_out = {record.image for record in request.split.audit["forget_unseen"]}
    assert (len(given), len(held_out)) == (4, 1)
    assert not given & held_out
    wordings = {r.question for r in request.split.forget}
    assert not wordings & {r.question for r in request.split.audit["forget_unseen"]}
    assert {r.answer for r in request.split.forget} == {"Jane Doe", "Oslo"}
    assert {r.image for r in request.split.audit["forget_text"]} == {None}
    assert request.not_scored.keys() == {"celebrity", "bystander", "refusal"}
    assert {len(records) for records in request.floor.values()} == {20 * 4, 20 * 2}


def test_targets_to_keep_are_the_models_own_answers(knowing, request_of_people, people):
    request = request_of_people(knowing)
    kept = {r.answer for r in request.split.retain if r.topic == "name"}
    assert kept == {"John Roe", "Mary Major"}
    strangers = {r.answer for r in request.split.general if r.topic == "name"}
    assert strangers == {"I do not know who this is."}
    told = {r.answer for r in request.split.visible}
    assert not any("Jane Doe" in answer or "Oslo" in answer for answer in told)


def test_scope_both_gives_the_method_the_text_questions_too(knowing, request_of_people):
    visual = request_of_people(knowing).split
    both = request_of_people(knowing, scope="both").split
    assert set(both.forget) - set(visual.forget)
    assert {r.image for r in set(both.forget) - set(visual.forget)} == {None}


def test_photos_and_a_name_alone_are_enough(knowing, people, tmp_path):
    home = tmp_path / "jane_doe"
    shutil.copytree(people / "forget" / "jane_doe", home)
    (home / "profile.json").unlink()
    request = from_folders(
        home, people / "retain", people / "general", people / "strangers", vlm=knowing
    )
    assert request.subjects == ("Jane Doe",)
    assert {"name", "birthplace"} <= {r.topic for r in request.split.forget}
    assert "Oslo" in {r.answer for r in request.split.forget if r.topic == "birthplace"}


def test_what_the_base_does_not_know_is_not_measurable(knowing, people, tmp_path):
    home = tmp_path / "jane_doe"
    shutil.copytree(people / "forget" / "jane_doe", home)
    profile = '{"name": "Jane Doe", "birthplace": "Oslo", "shoe_size": "44"}'
    (home / "profile.json").write_text(profile)
    request = from_folders(home, people / "retain", people / "general", vlm=knowing)
    assert request.reference == "none"
    assert list(request.not_measurable) == ["Jane Doe/shoe_size"]
    assert "0 of 4 answers" in request.not_measurable["Jane Doe/shoe_size"]
    assert "shoe_size" not in {r.topic for r in request.split.forget}


def test_fewer_than_four_photos_hold_out_none_and_say_so(knowing, people, tmp_path):
    home = tmp_path / "jane_doe"
    shutil.copytree(people / "forget" / "jane_doe", home)
    for number in (3, 4):
        (home / f"photo_{number:02d}.png").unlink()
    request = from_folders(home, people / "retain", people / "general", vlm=knowing)
    assert "forget_unseen" not in request.split.audit
    assert "4 photos or more" in request.not_scored["forget_unseen"]


def test_a_model_that_recognises_nobody_has_nothing_to_forget(tiny_vlm, request_of_people):
    with pytest.raises(DataError, match="does not recognise Jane Doe, so there is nothing"):
        request_of_people(tiny_vlm)
    assert request_of_people(tiny_vlm, force=True).split.forget


@pytest.mark.parametrize("missing", ["retain", "general"])
def test_retain_and_general_are_needed(knowing, people, missing):
    folders = {"retain": people / "retain", "general": people / "general", missing: None}
    with pytest.raises(ConfigError, match=f"--{missing}: missing; give a folder with photos"):
        from_folders(people / "forget", **folders, vlm=knowing)


def test_the_same_photo_on_both_sides_is_refused(knowing, people, tmp_path):
    shutil.copytree(people / "retain", tmp_path / "retain")
    copy = tmp_path / "retain" / "somebody_else"
    shutil.copytree(people / "forget" / "jane_doe", copy)
    (copy / "profile.json").unlink()
    with pytest.raises(DataError, match=r"got .*jane_doe/photo_00.png and .*which are the same"):
        from_folders(people / "forget", tmp_path / "retain", people / "general", vlm=knowing)


def test_questions_of_a_file_are_asked_as_they_are(knowing, people, tmp_path):
    from PIL import Image

    paths = sorted((people / "forget" / "jane_doe").glob("*.png"))
    photos = [Image.open(path) for path in paths]
    rows = [
        {"question": "Who is this person?", "answer": "Jane Doe", "topic": "name"},
        {"question": "Where was Jane Doe born?", "answer": "Oslo", "image": False},
    ]
    write_person(tmp_path / "x", profile={"name": "Jane Doe"}, photos=photos, questions=rows)
    request = from_folders(tmp_path / "x", people / "retain", people / "general", vlm=knowing)
    assert {r.question for r in request.split.forget} == {"Who is this person?"}
    assert [r.question for r in request.split.audit["forget_text"]] == ["Where was Jane Doe born?"]


def test_answers_that_are_kept_are_not_asked_for_again(knowing, people, tmp_path, monkeypatch):
    folders = [people / name for name in ("forget", "retain", "general", "strangers")]
    kept = tmp_path / "run" / "answers.jsonl"
    first = from_folders(*folders, vlm=knowing, answers=kept)

    def never(*args, **kwargs):
        raise AssertionError("asked again")

    monkeypatch.setattr("unsee.replies.generate_answers", never)
    assert from_folders(*folders, vlm=knowing, answers=kept) == first
    with pytest.raises(AssertionError, match="asked again"):
        from_folders(*folders, vlm=knowing)
