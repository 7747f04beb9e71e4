"""The world on disk, read back by the readers that read real requests and benchmarks."""

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from unsee.data.images import Photo
from unsee.data.mllmu import SCHEMAS, read_records, read_rows
from unsee.data.people import read_people
from unsee.data.records import SETS
from unsee.data.world import DRAWS, Part, is_world, known_records, open_world, read_split
from unsee.errors import ConfigError, DataError
from unsee.world.drawn import STRANGERS_OF, UNSEEN_VIEWS, Drawn
from unsee.world.faces import PALETTE, distance, make_faces
from unsee.world.profiles import CANDIDATE_ROLES, TOPICS, make_profiles
from unsee.world.questions import REFUSAL, UNKNOWN_NAME, UNKNOWN_PHOTO

EVAL_COLUMNS = [
    "image", "ID", "Directory", "biography", "question", "answer", "Classification_Task",
    "Generation_Task", "Mask_Task",
]  # fmt: skip
COLUMNS = {
    "Full_Set": EVAL_COLUMNS,
    "Retain_Set": EVAL_COLUMNS,
    **{f"{side}_{draw}": EVAL_COLUMNS for side in ("forget", "retain") for draw in (*"ABC", "dev")},
    "Test_Set": ["images", *EVAL_COLUMNS[1:]],
    "Dev_Set": ["images", *EVAL_COLUMNS[1:]],
    "ft_Data": ["image", "ID", "metadata"],
}
ROWS = {
    "Full_Set": 48, "Test_Set": 48, "Dev_Set": 48, "ft_Data": 48, "Retain_Set": 6,
    "forget_A": 4, "retain_A": 44, "forget_B": 4, "retain_B": 44, "forget_C": 4, "retain_C": 44,
    "forget_dev": 6, "retain_dev": 42,
}  # fmt: skip


@pytest.fixture(scope="module")
def splits(world_folder):
    return {(draw, part): read_split(world_folder, draw, part=part) for draw, part in COMBINED}


COMBINED: list[tuple[str, Part]] = [
    ("A", "report"),
    ("B", "report"),
    ("C", "report"),
    ("ABC", "report"),
    ("dev", "dev"),
]


def everything(split):
    return [
        *split.forget, *split.visible, *split.retain, *split.general,
        *(record for records in split.audit.values() for record in records),
    ]  # fmt: skip


def audited(split):
    return [record for records in split.audit.values() for record in records]


def photo_files(folder, records):
    return {str(r.image.path.relative_to(folder)) for r in records if r.image and r.image.path}


def test_the_folder_is_a_world_that_says_who_plays_which_part(world_folder, world):
    assert is_world(world_folder)
    assert not is_world(world_folder / "data")
    assert {"format", "family", "seed", "command", "recipe", "people"} == world.table.keys()
    assert [p["name"] for p in world.people] == [p.name for p in make_profiles(0)]
    development = Counter(p["role"] for p in world.people if p["development"])
    assert development == {"celebrity": 2, "dev": 6}


def test_every_parquet_file_is_there_with_its_exact_columns(world_folder):
    files = {path.stem: path for path in (world_folder / "data").glob("*.parquet")}
    assert files.keys() == COLUMNS.keys() == ROWS.keys()
    for name, path in files.items():
        table = pq.read_table(path)
        assert table.column_names == COLUMNS[name]
        assert table.num_rows == ROWS[name]
        kind = {"images": "test", "metadata": "train"}
        expected = next((kind[c] for c in COLUMNS[name] if c in kind), "eval")
        assert table.schema.equals(SCHEMAS[expected])


def test_draws_part_the_people(world_folder):
    ids = {
        name: {row["ID"] for row in read_rows(world_folder / "data" / f"{name}.parquet")}
        for name in COLUMNS
    }
    for draw in (*"ABC", "dev"):
        assert not ids[f"forget_{draw}"] & ids[f"retain_{draw}"]
        assert ids[f"forget_{draw}"] | ids[f"retain_{draw}"] == ids["Full_Set"]
    assert len(set.union(*(ids[f"forget_{draw}"] for draw in "ABC"))) == 12


def test_three_forms_are_asked_on_photos_and_as_text(world_folder):
    records = read_records(world_folder / "data" / "Test_Set.parquet")
    asked = Counter((r.form, r.image is not None) for r in records)
    assert asked == {
        ("open", True): 48 * 11, ("open", False): 48 * 10,
        ("choice", True): 48 * 5, ("choice", False): 48 * 5,
        ("cloze", True): 48 * 3, ("cloze", False): 48 * 3,
    }  # fmt: skip


def test_every_question_of_every_file_has_a_topic(world_folder, world):
    values = {value: topic for topic, all_ in TOPICS.items() for value in all_}
    names = {p["name"] for p in world.people}
    for name in COLUMNS:
        for record in world.asked(f"{name}.parquet"):
            answer = record.answer
            if record.form == "choice":
                answer = record.options["ABCD".index(answer)]
            assert record.topic == ("name" if answer in names else values[answer])
            assert record.subject in names


def test_a_question_without_a_topic_is_refused(world, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "world.json").write_text(json.dumps(dict(world.table)))
    (tmp_path / "data" / "extra.jsonl").write_text("")
    files = world.folder / "data"
    (tmp_path / "data" / "ft_Data.parquet").write_bytes((files / "ft_Data.parquet").read_bytes())
    with pytest.raises(DataError, match=r"ft_Data.parquet: question '.*' has no topic in extra"):
        open_world(tmp_path).asked("ft_Data.parquet")


def test_answers_are_the_persons_own(world):
    facts = {p.name: {p.name, *p.facts.values()} for p in make_profiles(0)}
    for file in ("Full_Set.parquet", "Test_Set.parquet", "Dev_Set.parquet"):
        for record in world.asked(file):
            answer = record.answer
            if record.form == "choice":
                answer = record.options["ABCD".index(answer)]
            assert answer in facts[record.subject]


def test_people_folders_are_read_by_the_reader_of_real_requests(world_folder):
    people = {person.slug: person for person in read_people(world_folder / "people")}
    profiles = make_profiles(0)
    assert people.keys() == {p.slug for p in profiles}
    for profile in profiles:
        person = people[profile.slug]
        assert person.profile == {"name": profile.name} | profile.facts
        assert len(person.photos) == 12
    assert len({photo.key for person in people.values() for photo in person.photos}) == 48 * 12


def test_photos_in_parquet_are_those_on_disk(world_folder):
    for name in ("Full_Set", "Test_Set"):
        for row in read_rows(world_folder / "data" / f"{name}.parquet"):
            for image in row.get("images") or [row["image"]]:
                assert (world_folder / image["path"]).read_bytes() == image["bytes"]


def test_unseen_photos_and_strangers_are_there(world_folder):
    for part, count in UNSEEN_VIEWS.items():
        photos = list((world_folder / "unseen" / part).glob("*/photo_*.png"))
        assert len(photos) == 48 * count
        assert Photo(path=photos[0]).open().size == (48, 48)
    for part, count in STRANGERS_OF.items():
        strangers = read_people(world_folder / "strangers" / part)
        assert [len(person.photos) for person in strangers] == [1] * count
    assert STRANGERS_OF["report"] >= 20


def test_the_last_half_of_strangers_are_look_alikes_of_somebody():
    faces = make_faces(48, 0)
    for part, count in STRANGERS_OF.items():
        alike = [
            any(distance(p.face, known, PALETTE) == 0 for known in faces)
            for p in Drawn(0).strangers(part)
        ]
        assert all(alike[count // 2 :])
        # An independent face shares a palette with one of 24 pairs once in 34.
        assert sum(alike[: count // 2]) <= 0.1 * count


def test_files_say_unknown_of_strangers_and_refuse(world):
    for part in ("train", "dev", "report"):
        asked = world.extras("stranger", part)
        named = {r.answer for r in asked if not r.topic.startswith("visible")}
        assert named == {UNKNOWN_PHOTO}
        assert {r.answer for r in world.extras("unknown", part)} == {UNKNOWN_NAME}
        refused = world.extras("refusal", part)
        assert {r.answer for r in refused} == {REFUSAL}
        assert {r.image is None for r in refused} == {True, False}


def test_held_out_unknown_names_were_never_taught(world):
    taught = set(Drawn(0).cast(gold=False, strangers=1).unknown)
    for part in ("dev", "report"):
        assert not taught & {r.subject for r in world.extras("unknown", part)}


@pytest.mark.parametrize(("draw", "part"), COMBINED)
def test_a_split_has_every_set_on_the_right_people(splits, world, draw, part):
    split = splits[draw, part]
    forget = world.names(DRAWS[draw])
    assert set(split.subjects) == forget
    assert {r.subject for r in (*split.forget, *split.visible)} == forget
    retain = world.names(["retain"])
    assert {r.subject for r in split.retain} == retain
    missing = {"bystander"} if draw in ("ABC", "dev") else set()
    assert split.audit.keys() == set(SETS) - missing
    for name, records in split.audit.items():
        assert {r.set for r in records} == {name}
        people = {r.subject for r in records}
        if name.startswith("forget"):
            assert people == forget
        elif name.startswith("retain"):
            assert people == retain
        else:
            assert not people & (forget | retain)


def test_bystanders_are_the_candidates_of_the_other_draws(splits, world):
    people = {r.subject for r in splits["A", "report"].audit["bystander"]}
    assert people == world.names(("B", "C"))


@pytest.mark.parametrize("draw", ["A", "B", "C", "ABC"])
def test_development_people_are_in_no_reported_split(splits, world, draw):
    development = world.names(CANDIDATE_ROLES, development=True)
    development |= world.names(["celebrity"], development=True)
    assert len(development) == 8
    split = splits[draw, "report"]
    assert not development & {r.subject for r in everything(split)}
    celebrities = {r.subject for r in split.audit["celebrity"]}
    assert celebrities == world.names(["celebrity"], development=False)
    assert len(celebrities) == 4


def test_reported_people_are_in_no_development_split(splits, world):
    people = {r.subject for r in everything(splits["dev", "dev"])}
    assert not people & world.names(("A", "B", "C"))
    assert not people & world.names(["celebrity"], development=False)


def test_what_serves_choices_and_what_is_reported_share_no_item(splits, world_folder):
    """Of held-out photos, wordings, requests, strangers and names of nobody."""
    held_out = [
        "forget_unseen", "forget_text", "retain_unseen", "retain_text", "celebrity", "general",
        "refusal",
    ]  # fmt: skip
    dev, report = (
        [r for name in held_out for r in splits[key].audit[name]]
        for key in (("dev", "dev"), ("ABC", "report"))
    )
    assert not {r.image.key for r in dev if r.image} & {r.image.key for r in report if r.image}
    # A cloze has one wording for all: it tells apart by photo and person.
    wordings = [
        {_frame(r) for r in records if r.form in ("open", "caption") and r.set != "general"}
        for records in (dev, report)
    ]
    assert not wordings[0] & wordings[1]
    strangers = [
        {r.subject for r in records if r.set in ("general", "refusal")} for records in (dev, report)
    ]
    assert not strangers[0] & strangers[1]


def _frame(record):
    return record.question.replace(record.subject, "this person")


@pytest.mark.parametrize("part", ["report", "dev"])
def test_what_a_method_is_given_is_never_asked_as_unseen(splits, part):
    split = splits["A" if part == "report" else "dev", part]
    given = {r.image.key for r in (*split.forget, *split.visible, *split.retain) if r.image}
    given |= {r.image.key for r in split.general if r.image}
    for name in ("forget_unseen", "retain_unseen", "celebrity", "general"):
        asked = split.audit[name]
        assert not given & {r.image.key for r in asked if r.image}
        if name.endswith("_unseen"):
            mine = {r.question for r in (*split.forget, *split.retain) if r.form == "open"}
            assert not mine & {r.question for r in asked if r.form == "open"}


@pytest.mark.parametrize("photos", [1, 5, 12])
def test_a_method_gets_as_many_photos_as_asked(world_folder, photos):
    split = read_split(world_folder, "A", photos=photos)
    # Visible attributes are asked on the first ten at most.
    for records, expected in ((split.forget, photos), (split.visible, min(photos, 10))):
        shown = {(r.subject, r.image and r.image.key) for r in records}
        assert set(Counter(name for name, _ in shown).values()) == {expected}


def test_photos_a_method_gets_are_stored_ones(world_folder, splits):
    split = splits["A", "report"]
    files = photo_files(world_folder, (*split.forget, *split.retain))
    assert {name.split("/")[0] for name in files} == {"people"}
    strangers = photo_files(world_folder, split.general)
    assert {tuple(name.split("/")[:2]) for name in strangers} == {("strangers", "train")}


def test_nobody_says_a_candidates_name_in_what_is_kept(splits):
    split = splits["A", "report"]
    kept = (*split.visible, *split.retain, *split.general)
    assert not any(name in r.answer for r in kept for name in split.subjects)


def test_every_topic_is_asked_of_every_candidate_on_unseen_photos(splits):
    asked = splits["ABC", "report"].audit["forget_unseen"]
    topics = {(r.subject, r.topic) for r in asked if r.form == "open"}
    assert len(topics) == 12 * (len(TOPICS) + 1)
    assert {r.form for r in asked} == {"open", "choice", "cloze", "caption"}


def test_known_records_tell_everything_on_photos(world_folder):
    known = {(r.subject, r.topic) for r in known_records(world_folder) if r.form == "open"}
    assert len(known) == 48 * 11


@pytest.mark.parametrize(
    ("draw", "more", "message"),
    [
        ("D", {}, "world:D: expected one of A, B, C, dev, ABC"),
        ("A", {"photos": 0}, "photos: expected 1 to 60 a person, got 0"),
        ("A", {"photos": 61}, "photos: expected 1 to 60 a person, got 61"),
    ],
)
def test_a_split_that_is_not_there_is_refused(world_folder, draw, more, message):
    with pytest.raises(ConfigError) as refused:
        read_split(world_folder, draw, **more)
    assert str(refused.value) == message


def test_a_folder_without_a_world_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"world.json: expected a world, .*unsee world make --out"):
        open_world(tmp_path)


def test_missing_photos_are_refused(world):
    slug = world.people[0]["slug"]
    with pytest.raises(DataError, match="expected 13 photos, got 12; ask for fewer"):
        world.photos(slug, 13)
