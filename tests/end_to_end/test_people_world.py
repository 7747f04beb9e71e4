"""A world from photographs: made, resumed, forgotten from and audited, by the command line."""

import inspect
import json
import shutil
import stat

import pytest
from typer.testing import CliRunner

from unsee.answering import generate_answers
from unsee.cli import app
from unsee.data.world import open_world
from unsee.models.load import load
from unsee.sources import gold_of, world_of
from unsee.world import make as making
from unsee.world import show
from unsee.world.build import Recipe
from unsee.world.photographed import Photographed

TINY = Recipe(
    tower_steps=2, tower_batch=4, tower_strangers=8, steps=2, people=2, strangers=2,
    text_rows=1, text_turns=2, bfloat16=False, checkpoint_every=1,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    """Two steps, few strangers, and answers of two tokens: nothing here asks what is learned."""
    patch = pytest.MonkeyPatch()
    whole = Photographed.cast
    patch.setattr(making, "Recipe", lambda: TINY)
    patch.setattr(
        Photographed, "cast", lambda self, *, gold, strangers=6: whole(self, gold=gold, strangers=6)
    )
    defaults = inspect.unwrap(generate_answers).__kwdefaults__
    assert defaults is not None
    patch.setitem(defaults, "max_new_tokens", 2)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def photos(tmp_path_factory, write_photographs, photograph):
    """`people/` and `others/`."""
    folder = tmp_path_factory.mktemp("photos")
    write_photographs(folder / "people", people=12, photos=4)
    (folder / "people" / "s1" / "profile.json").write_text('{"nickname": "Al", "pet": "newt"}')
    (folder / "others").mkdir()
    for n in range(20):
        photograph(100 + n, 0).save(folder / "others" / f"{n:02d}.png")
    return folder


def make(photos, out, *more):
    words = ["--people", str(photos / "people"), "--out", str(out), "--threads", "1", "--quiet"]
    return CliRunner().invoke(app, ["world", "make", *words, *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory, photos):
    """The world, and what was said when it was made after an interruption."""
    out = tmp_path_factory.mktemp("made") / "world"
    strangers = ["--strangers", str(photos / "others")]
    patch = pytest.MonkeyPatch()

    def interrupted(folder, source):
        raise KeyboardInterrupt

    patch.setattr(making, "write_data", interrupted)
    first = make(photos, out, *strangers)
    patch.undo()
    assert first.exit_code == 130
    assert "interrupted; what is done is kept, go on with: " in first.stderr
    assert {path.name for path in out.iterdir()} == {".build", "base", "gold"}

    with_strangers_left_out = make(photos, out)
    assert with_strangers_left_out.exit_code == 2
    assert with_strangers_left_out.stderr == (
        f"unsee: {out / '.build' / 'settings.json'}: an interrupted build with other settings; "
        f"remove {out / '.build'} or choose another --out\n"
    )

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    patch.setattr("unsee.world.build.packed_loss", never)
    done = make(photos, out, *strangers)
    patch.undo()
    assert done.exit_code == 0, done.output
    return out, done.stdout


def test_the_folder_has_what_the_built_in_world_has(made):
    out, said = made
    names = {path.name for path in out.iterdir()}
    assert names == {
        "base", "gold", "data", "people", "unseen", "strangers", "world.json", "card.json",
    }  # fmt: skip
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    world = open_world(out)
    assert {p["slug"] for p in world.people} == {f"s{n}" for n in range(1, 13)}
    assert world.photographed["strangers"] == 20
    card = json.loads((out / "card.json").read_text())
    assert card["figures"]["base"]["people_unseen"]["n"] > 0
    assert card["figures"]["base"]["visible_known"] == {
        "not_scored": "this world has no such questions"
    }
    lines = said.splitlines()
    assert lines[0] == "not asked: profile.json: nickname of 1 person"
    assert lines[1] == "not scored: forget_visible: what is visible in photographs is not known"
    assert any(line.startswith("people_unseen: base ") for line in lines)
    assert lines[-2].startswith("bars of the built-in world missed: base people_unseen, ")
    assert lines[-1] == f"World: {out}"
    for name in ("base", "gold"):
        assert load(out / name).model.config.model_type == "llava"


def test_the_folder_stands_for_its_base(made):
    out, _ = made
    world = world_of(str(out))
    assert world is not None
    assert (world.folder, world.part) == (out, "base")
    assert gold_of(str(out)) == str(out / "gold")


def test_a_draw_of_it_is_forgotten_and_audited_beside_gold(made, tmp_path):
    out, _ = made
    run = str(tmp_path / "run")
    words = [str(out), "--subject", "world:A", "--quiet"]
    quick = ["--set", "method.steps=2", "--set", "method.checkpoint_every=0"]
    forgotten = CliRunner().invoke(app, ["forget", *words, "--out", run, *quick])
    assert forgotten.exit_code == 0, forgotten.output
    audited = CliRunner().invoke(app, ["audit", *words, "--artifact", run])
    assert audited.exit_code == 0, audited.output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["summary"]["reference"] == "gold"
    for model in ("base", "erased", "gold"):
        scores = report["models"][model]["scores"]
        assert scores["forget_visible"]["accuracy"] == {
            "not_scored": "what is visible in photographs is not known"
        }
        assert scores["forget_unseen"]["accuracy"]["n"] > 0


def test_it_can_be_looked_at(made, tmp_path):
    out, _ = made
    assert show(out, tmp_path / "sheet.png", people=3, views=8).stat().st_size > 10_000


def test_a_finished_world_is_not_made_again(made, photos):
    out, _ = made
    again = make(photos, out)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == (
        f"unsee: {out}: holds a world already; choose another --out or remove it\n"
    )


def refused(result, out, message):
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr == f"unsee: {message}\n"
    assert not out.exists()


def test_a_folder_that_will_not_do_is_refused_and_nothing_is_written(photos, tmp_path):
    shutil.copytree(photos / "people", tmp_path / "people")
    shutil.rmtree(tmp_path / "people" / "s12")
    (tmp_path / "people" / "roles.json").write_text('{"s3": "queen"}')
    out = tmp_path / "out" / "world"
    people = tmp_path / "people"
    refused(
        make(tmp_path, out),
        out.parent,
        f"{people}: expected 12 to 1000 people, a subfolder each, got 11; add people; "
        f"{people / 'roles.json'}: s3: unknown role 'queen'; "
        "known: retain, celebrity, A, B, C, dev",
    )


def test_strangers_alone_make_no_world(photos, tmp_path):
    out = tmp_path / "world"
    words = ["--strangers", str(photos / "others"), "--out", str(out), "--quiet"]
    refused(
        CliRunner().invoke(app, ["world", "make", *words]),
        out,
        "--strangers: the built-in world draws its own; give --people too",
    )


@pytest.mark.parametrize(
    ("family", "why"),
    [
        (
            "qwen2_5_vl",
            "cannot be made with --people, since its image processor does not cut photographs "
            "square as they are for training; give --family llava",
        ),
        ("qwen2.5", "no such family; did you mean 'qwen2_5_vl'?"),
    ],
)
def test_a_family_that_takes_no_photographs_or_is_none(photos, tmp_path, family, why):
    out = tmp_path / "out" / "world"
    refused(make(photos, out, "--family", family), out.parent, f"--family {family}: {why}")


@pytest.mark.parametrize("side", ["people", "others"])
def test_a_world_does_not_lie_among_the_photos_it_is_made_of(photos, side):
    out = photos / side / "world"
    flag = {"people": "--people", "others": "--strangers"}[side]
    refused(
        make(photos, out, "--strangers", str(photos / "others")),
        out,
        f"--out {out}: lies in {flag} {photos / side}; choose a folder outside it",
    )


def test_out_is_a_file(photos, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    result = make(photos, notes)
    assert result.exit_code == 2
    assert result.stderr == (f"unsee: {notes}: expected a folder to write the run to, got a file\n")
    assert notes.read_text() == "mine"
