import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.data.images import Photo
from unsee.data.parquet import IMAGE
from unsee.data.people import Person
from unsee.errors import ConfigError, DataError
from unsee.replies import StandIns
from unsee.requests import from_people, read_dataset
from unsee.requests.albums import refuse_missing

TEXT = pa.string()
PHOTOS = pa.schema([("image", IMAGE), ("caption", TEXT), ("name", TEXT)])
TOFU = pa.schema([("image", IMAGE), ("caption", TEXT), ("question", TEXT), ("answer", TEXT)])
OPTIONS = pa.schema(
    [("image", IMAGE), ("question", TEXT), ("answer", TEXT), ("options", pa.list_(TEXT))]
)
AUTHORS = ["Ana Li", "Bo Sun", "Céline Roux", "Dag Holm"]


def png(number):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number, 0, 7)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def photos(*authors):
    return [
        {"image": png(10 * AUTHORS.index(name) + n), "caption": f"{name} reads.", "name": name}
        for name in authors
        for n in range(2)
    ]


def tofu(*authors):
    """Photos with captions first, then two questions an author; only one of them names them."""
    captions = [
        {"image": row["image"], "caption": row["caption"], "question": None, "answer": None}
        for row in photos(*authors)
    ]
    return captions + [
        {"image": None, "caption": None, "question": question, "answer": answer}
        for name in authors
        for question, answer in (("Who?", f"{name.replace('é', 'e')}."), ("Which book?", "Dusk."))
    ]


def write(folder, split, schema, rows):
    home = folder / split
    home.mkdir(exist_ok=True)
    path = home / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


@pytest.fixture
def benchmark(tmp_path):
    """Published splits of four authors, two real faces and two general questions."""
    for share, count in (("01", 1), ("05", 1), ("10", 2)):
        rest = f"{100 - int(share)}"
        write(tmp_path, f"forget{share}", PHOTOS, photos(*AUTHORS[:count]))
        write(tmp_path, f"forget{share}+tofu", TOFU, tofu(*AUTHORS[:count]))
        write(tmp_path, f"retain{rest}", PHOTOS, photos(*AUTHORS[count:]))
        write(tmp_path, f"retain{rest}+tofu", TOFU, tofu(*AUTHORS[count:]))
    face = {"question": "Who is it?", "answer": "Eva Star", "options": ["Flo", "Gus"]}
    write(tmp_path, "real_faces", OPTIONS, [{"image": png(n), **face} for n in (100, 101)])
    sight = {"question": "Which tower?", "answer": "Eiffel", "options": ["Pisa"]}
    write(tmp_path, "real_world", OPTIONS, [{"image": png(110), **sight}, {"image": None, **sight}])
    return tmp_path


@pytest.mark.parametrize("split", ["forget10", "forget_10"])
def test_splits_become_sides(benchmark, split):
    sides = read_dataset(f"clear:{benchmark}#{split}")
    assert sides.source == f"clear:{benchmark}#forget10"
    assert sides.whole
    assert [p.name for p in sides.people["forget"]] == ["Ana Li", "Bo Sun"]
    assert [p.name for p in sides.people["retain"]] == ["Céline Roux", "Dag Holm"]
    ana = sides.people["forget"][0]
    assert [p.read() for p in ana.photos] == [png(n)["bytes"] for n in (0, 1)]
    assert ana.held_out == ()
    assert [(r.form, r.topic, r.image is None, r.answer) for r in ana.records] == [
        ("caption", "", False, "Ana Li reads."),
        ("open", "name", False, "Ana Li"),
        ("caption", "", False, "Ana Li reads."),
        ("open", "name", False, "Ana Li"),
        ("open", "", True, "Ana Li."),
        ("open", "", True, "Dusk."),
    ]
    celine = sides.people["retain"][0]
    assert [r.answer for r in celine.records if r.image is None] == ["Celine Roux.", "Dusk."]


def test_real_people_and_general_questions_are_asked_and_never_given(benchmark):
    sides = read_dataset(f"clear:{benchmark}#forget_5")
    [eva] = sides.people["celebrity"]
    assert (eva.name, len(eva.photos)) == ("Eva Star", 2)
    assert [r.form for r in eva.records] == ["open", "choice", "open", "choice"]
    [tower] = sides.people["general"]
    assert tower.held_out == tower.photos
    with pytest.raises(ConfigError, match=r"^--general: missing; give a folder with photos of str"):
        refuse_missing(sides)
    refuse_missing(sides, given=["general"])


def test_what_has_no_counterpart_is_listed(benchmark):
    write(benchmark, "full", PHOTOS, photos(*AUTHORS))
    sides = read_dataset(f"clear:{benchmark}#forget_5")
    why = "the request does not name it"
    others = {f"{name}{kind}" for name in ("forget01", "retain99") for kind in ("", "+tofu")}
    others |= {f"{name}{kind}" for name in ("forget10", "retain90") for kind in ("", "+tofu")}
    assert {name for name, reason in sides.left_out.items() if reason == why} == others | {"full"}
    assert sides.left_out["real_world"] == (
        "1 of 2 rows of train-00000-of-00001.parquet, which have no photo"
    )
    assert sides.not_scored.keys() == {"refusal", "forget_unseen", "retain_unseen"}


def test_without_text_and_real_people(benchmark):
    for split in ("forget05+tofu", "retain95+tofu", "real_faces", "real_world"):
        for path in (benchmark / split).iterdir():
            path.unlink()
    sides = read_dataset(f"clear:{benchmark}#forget05")
    assert sides.not_scored["forget_text"] == f"{benchmark} has no forget05+tofu"
    assert sides.not_scored["retain_text"] == f"{benchmark} has no retain95+tofu"
    assert sides.not_scored["celebrity"] == f"{benchmark} has no real_faces"
    assert not sides.people["general"]


def test_text_about_nobody_of_the_split_is_left_out_and_counted(benchmark):
    write(benchmark, "forget05+tofu", TOFU, tofu("Dag Holm"))
    sides = read_dataset(f"clear:{benchmark}#forget05")
    assert sides.left_out["forget05+tofu"] == "2 questions, which name nobody of forget05"
    assert all(r.image is not None for r in sides.people["forget"][0].records)


def test_missing_split_lists_those_there_are(benchmark):
    with pytest.raises(ConfigError) as caught:
        read_dataset(f"clear:{benchmark}#forget_20")
    assert str(caught.value).startswith(
        f"clear:{benchmark}#forget20: no such split; did you mean 'forget10'? (splits there: "
    )
    (benchmark / "retain90" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"#forget10: expected retain90 beside it, got forget01, "):
        read_dataset(f"clear:{benchmark}#forget10")


def test_missing_column_lists_those_there_are(benchmark):
    path = write(benchmark, "forget05", PHOTOS, photos("Ana Li"))
    pq.write_table(pq.read_table(path).drop_columns(["name"]), path)
    with pytest.raises(DataError) as caught:
        read_dataset(f"clear:{benchmark}#forget05")
    assert str(caught.value) == (
        f"{path}: expected columns image, caption, name, got image, caption; missing: name"
    )


def test_faults_of_all_files_are_counted_and_bounded(benchmark):
    bad = photos("Ana Li")[0] | {"image": {"bytes": b"x", "path": None}}
    path = write(benchmark, "forget05", PHOTOS, [bad] * 25)
    text = tofu("Ana Li")[-1] | {"answer": None}
    write(benchmark, "forget05+tofu", TOFU, [text])
    with pytest.raises(DataError) as caught:
        read_dataset(f"clear:{benchmark}#forget05")
    faults = caught.value.args
    assert len(faults) == 21
    assert faults[0].startswith(f"{path}: row 1: image: photo ")
    assert "expected a readable jpg, png, webp or pgm image, got 1 bytes" in faults[0]
    assert faults[20] == "and 6 more faults"
    write(benchmark, "forget05", PHOTOS, photos("Ana Li"))
    with pytest.raises(DataError, match=r"tofu/train-.*: row 1: answer: expected text, got None$"):
        read_dataset(f"clear:{benchmark}#forget05")


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="expected a folder with CLEAR's files, got nothing"):
        read_dataset(f"clear:{tmp_path / 'gone'}#forget_5")


def test_the_request_fills_our_sets(benchmark):
    stranger = Person("stranger", "stranger", (Photo(data=png(200)["bytes"]),))
    sides = read_dataset(f"clear:{benchmark}#forget_10").joined({"general": [stranger]})
    request = from_people(sides, base=StandIns(), scope="both", force=True)
    split = request.split
    assert {name: len(records) for name, records in split.audit.items()} == {
        "forget_seen": 8,
        "forget_text": 4,
        "forget_visible": 24,
        "retain_seen": 8,
        "retain_text": 4,
        "celebrity": 4,
        "general": 2,
    }
    assert {r.subject for r in split.forget} == {"Ana Li", "Bo Sun"}
    assert len(split.forget) == 8 + 4
    # What the method keeps of strangers is on the user's photo, and nothing of the benchmark's.
    assert {r.image for r in split.general} == set(stranger.photos)
    assert request.not_scored["forget_unseen"] == "CLEAR has no other photos of them"
    assert request.description["left_out"] == sides.left_out
