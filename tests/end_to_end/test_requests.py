# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportArgumentType=false
import itertools
import json
import shutil
import time

import pytest

from unsee.data.mllmu import write_rows
from unsee.data.people import write_person
from unsee.errors import ConfigError, DataError
from unsee.requests import from_folders, from_people, read_dataset, read_rows, read_sides


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


@pytest.fixture
def unsee_main():
    """The command line in this process."""
    from typer.testing import CliRunner

    from unsee.cli import app

    return lambda *words: CliRunner().invoke(app, list(words))


def rows_of(people, side, role, **more):
    return [
        {"subject": folder.name.replace("_", " ").title(), "role": role, **more}
        | {"image": str(path.relative_to(people))}
        for folder in sorted((people / side).iterdir())
        for path in sorted(folder.glob("*.png"))
    ]


def loose(people, side, role):
    return [
        {"image": str(path.relative_to(people)), "role": role}
        for path in sorted((people / side).glob("*.png"))
    ]


@pytest.fixture
def request_file(people, tmp_path):
    """Writes rows beside the photos, which the file has to be."""
    home = tmp_path / "home"
    shutil.copytree(people, home)

    def write(*rows):
        (home / "request.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return home / "request.jsonl"

    return write


def test_a_file_of_photos_and_names_asks_what_folders_ask(knowing, people, request_file, tmp_path):
    rows = rows_of(people, "forget", "forget") + rows_of(people, "retain", "retain")
    rows += loose(people, "general", "general") + loose(people, "strangers", "stranger")
    request = from_people(read_rows(request_file(*rows)), vlm=knowing)
    bare = tmp_path / "bare"
    for side in ("forget", "retain"):
        shutil.copytree(people / side, bare / side)
    for path in bare.rglob("profile.json"):
        path.unlink()
    folders = from_folders(
        bare / "forget", bare / "retain", people / "general", people / "strangers", vlm=knowing
    )

    def asked(records):
        return [(r.image and r.image.key, r.question, r.answer) for r in records]

    for name in ("forget", "visible", "retain", "general"):
        assert asked(getattr(request.split, name)) == asked(getattr(folders.split, name))
    assert request.split.audit.keys() == folders.split.audit.keys()
    assert (request.subjects, request.reference) == (("Jane Doe",), "strangers")


def test_rows_with_questions_are_asked_as_they_are(knowing, people, request_file):
    jane = rows_of(people, "forget", "forget")
    told = {"subject": "Jane Doe", "question": "Where was Jane Doe born?", "answer": "Oslo"}
    rows = [
        jane[0] | {"question": "Who is this person?", "answer": "Jane Doe"},
        jane[1],
        jane[2] | {"question": "Any beard?", "answer": "no", "topic": "visible:beard"},
        {"subject": "Jane Doe", "image": jane[4]["image"], "set": "forget_unseen"},
        told,
        *rows_of(people, "retain", "retain")[:5],
        {"subject": "Mary Major", "role": "celebrity", "question": "Who is this person?"}
        | {"image": "retain/mary_major/photo_00.png"},
        *loose(people, "general", "general"),
    ]
    request = from_people(read_rows(request_file(*rows)), vlm=knowing)
    audit = request.split.audit
    seen = {(r.image.path.name, r.question) for r in audit["forget_seen"]}
    assert seen == {
        ("photo_00.png", "Who is this person?"),
        ("photo_01.png", "Who is this person?"),
        ("photo_01.png", "What is the name of this person?"),
    }
    assert {r.image.path.name for r in audit["forget_unseen"]} == {"photo_04.png"}
    assert [r.question for r in audit["forget_text"]] == ["Where was Jane Doe born?"]
    assert "Any beard?" not in {r.question for r in request.split.forget}
    (known,) = audit["celebrity"]
    assert (known.subject, known.answer) == ("Mary Major", "Mary Major")
    assert known.image not in {r.image for r in request.split.retain}


@pytest.fixture
def benchmark(people, tmp_path):
    """The people of the model as MLLMU-Bench publishes its own, Jane Doe to be forgotten."""

    def row(number, folder, photos):
        facts = json.loads((folder / "profile.json").read_text())
        questions = {"What is the name of this person?": facts["name"]}
        questions["Where was this person born?"] = facts["birthplace"]
        asked = [
            {"Question": text, "Ground_Truth": answer, "Type": "Image_Textual"}
            for text, answer in questions.items()
        ]
        asked.append({"Question": "What is the shoe size?", "Ground_Truth": "44"})
        asked[-1]["Type"] = "Image_Textual"
        images = [{"bytes": (folder / p).read_bytes(), "path": p} for p in photos]
        return {
            **({"image": images[0]} if len(images) == 1 else {"images": images}),
            "ID": f"{number:03d}",
            "Directory": folder.name,
            "biography": json.dumps({"Name": facts["name"]}),
            "question": "",
            "answer": "",
            "Classification_Task": {"Image_Textual_Questions": [], "Pure_Text_Questions": []},
            "Generation_Task": asked,
            "Mask_Task": [],
        }

    folders = [*(people / "forget").iterdir(), *sorted((people / "retain").iterdir())]
    full = [row(n, folder, ["photo_00.png"]) for n, folder in enumerate(folders)]
    test = [row(n, folder, ["photo_01.png", "photo_04.png"]) for n, folder in enumerate(folders)]
    home = tmp_path / "bench"
    home.mkdir()
    write_rows(home / "forget_10.parquet", full[:1])
    write_rows(home / "retain_90.parquet", full[1:])
    write_rows(home / "Test_Set.parquet", test)
    write_rows(home / "Full_Set.parquet", full)
    return home


def test_a_benchmarks_forget_set_is_given_whole(knowing, people, benchmark):
    sides = read_dataset(f"mllmu:{benchmark}#forget_10")
    request = from_people(sides.joined(read_sides({"general": people / "general"})), vlm=knowing)
    assert request.subjects == ("Jane Doe",)
    assert {r.answer for r in request.split.forget} == {"Jane Doe", "Oslo", "44"}
    assert list(request.not_measurable) == ["Jane Doe/What is the shoe size?"]
    audit = request.split.audit
    assert len(audit["forget_unseen"]) == 3
    assert {r.subject for r in audit["retain_unseen"]} == {"John Roe", "Mary Major"}
    assert request.description["left_out"].keys() == {"Full_Set"}
    assert request.not_scored["celebrity"] == f"{benchmark} has no Retain_Set"


def test_forget_and_audit_take_a_file_and_a_benchmark(
    unsee_main, knowing_folder, people, benchmark, request_file, tmp_path, monkeypatch
):
    """Under a clock that runs backwards: no time that is reported comes from it."""
    clock = itertools.count(2e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    rows = rows_of(people, "forget", "forget") + rows_of(people, "retain", "retain")
    path = request_file(*rows, *loose(people, "general", "general"))
    sources = {
        "file": ["--request", str(path)],
        "benchmark": ["--dataset", f"mllmu:{benchmark}#forget_10", "--general"],
    }
    sources["benchmark"].append(str(people / "general"))
    quick = ["--set", "method.steps=2", "--set", "method.checkpoint_every=0", "--quiet"]
    for name, source in sources.items():
        run = tmp_path / "runs" / name
        if name == "file":
            source = [*source, "--strangers", str(people / "strangers")]
        done = unsee_main("forget", str(knowing_folder), *source, "--out", str(run), *quick)
        assert done.exit_code == 0, done.output
        assert f"Next: unsee audit {knowing_folder} --artifact {run} {source[0]} " in done.stdout
        words = [*source, "--artifact", str(run), "--quiet"]
        if name == "benchmark":
            words += ["--protocol", "published"]
        told = unsee_main("audit", str(knowing_folder), *words)
        assert told.exit_code == 0, told.output
        report = json.loads((run / "report.json").read_text())
        assert report["request"]["subjects"] == ["Jane Doe"]
        assert report["cost"]["wall_s"] > 0
        assert report["data"]["audit_wall_s"] > 0
        if name == "benchmark":
            assert "left out: Full_Set: the request does not name it" in done.stdout
            assert report["request"]["left_out"].keys() == {"Full_Set"}
            own = report["data"]["published"]
            assert set(own) == {"base", "erased"}
            assert set(own["base"]) == {"forget", "test", "retain"}
            assert own["base"]["forget"]["image rouge_l"]["n"] == 3
            for view in ("report.md", "report.html"):
                assert "Scores as published" in (run / view).read_text()
