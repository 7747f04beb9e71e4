import json
import multiprocessing
import os
import shutil

import pytest
import torch

from unsee.artifacts import locked
from unsee.errors import ArtifactError, ConfigError, UnseeError

# The package exports a function of the module's name, which hides the module.
from unsee.world import make as making
from unsee.world.build import Recipe


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Stands for the folder of shipped weights."""
    folder = tmp_path / "package"
    for name in ("base", "gold"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_text(f"weights of {name}")
    (folder / "world.json").write_text(json.dumps({"seed": 7, "people": []}))
    monkeypatch.setattr(making, "shipped", lambda family: folder)
    return folder


@pytest.fixture
def written(monkeypatch):
    """Seeds that data was written for; the drawing itself is left out."""
    seeds = []

    def write_data(folder, source):
        seeds.append(source.seed)
        (folder / "people").mkdir()

    monkeypatch.setattr(making, "write_data", write_data)
    return seeds


@pytest.fixture
def trained(monkeypatch):
    """Calls of the training, which is left out."""
    calls = []

    def train_tower(architecture, work, source, recipe, progress):
        calls.append(f"{architecture.family} tower")
        progress("tower", 1, 1, 0.5)

    def train_model(architecture, work, source, recipe, progress, *, gold):
        calls.append(f"{architecture.family} {'gold' if gold else 'base'}")
        return None, None

    monkeypatch.setattr(making, "train_tower", train_tower)
    monkeypatch.setattr(making, "train_model", train_model)
    monkeypatch.setattr(making, "save_model", lambda model, processor, folder: folder.mkdir())
    return calls


def test_the_shipped_world_is_written_to_the_cache_once(cache, package, written):
    told = []
    folder = making.materialise(progress=lambda *args: told.append(args))
    assert folder.parent == cache
    assert {path.name for path in folder.iterdir()} == {"base", "gold", "people", "world.json"}
    assert (folder / "gold" / "model.safetensors").read_text() == "weights of gold"
    assert told == [("drawing the world", 0, 1), ("drawing the world", 1, 1)]
    assert making.materialise() == folder
    assert written == [7]


def test_other_weights_get_a_folder_of_their_own(cache, package, written):
    first = making.materialise()
    (package / "world.json").write_text(json.dumps({"seed": 8, "people": []}))
    assert making.materialise() != first
    assert written == [7, 8]


def test_a_world_that_could_not_be_written_leaves_nothing(cache, package, monkeypatch):
    def fails(folder, source):
        (folder / "people").mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(making, "write_data", fails)
    with pytest.raises(OSError, match="disk full"):
        making.materialise()
    assert list(cache.iterdir()) == []


def test_half_a_world_is_replaced(cache, package, written):
    folder = making.materialise()
    (folder / "world.json").unlink()
    (folder / "rest").touch()
    assert making.materialise() == folder
    assert (folder / "world.json").is_file()
    assert not (folder / "rest").exists()


def test_a_world_that_another_process_finished_first_is_left_alone(
    cache, package, written, monkeypatch
):
    """The other process may be reading from it already."""
    folder = making.materialise()
    finished = cache / "finished"
    folder.rename(finished)

    def write_data(partial, source):
        shutil.copytree(finished, folder)
        (folder / "theirs").touch()

    monkeypatch.setattr(making, "write_data", write_data)
    assert making.materialise() == folder
    assert (folder / "theirs").exists()
    assert {path.name for path in cache.iterdir()} == {"finished", folder.name}


def test_the_cache_is_the_systems_own_without_the_variable(monkeypatch):
    monkeypatch.delenv("UNSEE_CACHE", raising=False)
    assert making.cache_folder().name == "unsee"


def test_a_family_that_is_not_shipped_is_refused(monkeypatch):
    with pytest.raises(ConfigError) as refused:
        making.shipped("lava")
    assert str(refused.value) == "world:lava: no such world; did you mean 'llava'?"
    monkeypatch.setattr(making, "FAMILIES", ("llava", "new"))
    with pytest.raises(ConfigError) as refused:
        making.shipped("new")
    assert str(refused.value) == (
        "world:new: its models are not shipped; train them with unsee world make --family new "
        "--out DIR, and give DIR in its place"
    )


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_making_trains_both_models_and_ends_with_the_table(tmp_path, trained, written, family):
    told = []
    folder = making.make_world(
        tmp_path / "world",
        family=family,
        seed=3,
        command="unsee world make --seed 3",
        progress=lambda *args: told.append(args),
    )
    assert trained == [f"{family} {part}" for part in ("tower", "base", "gold")]
    assert written == [3]
    assert told == [("tower", 1, 1)]
    assert {path.name for path in folder.iterdir()} == {"base", "gold", "people", "world.json"}
    table = json.loads((folder / "world.json").read_text())
    assert (table["seed"], table["command"]) == (3, "unsee world make --seed 3")
    assert table["family"] == family
    assert table["recipe"] == Recipe().__dict__
    assert len(table["people"]) == 48


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.slow
def test_base_and_gold_made_side_by_side_are_those_made_one_after_the_other(
    tmp_path, written, request
):
    """Also where the process of one of them is killed, and the other is ended with it."""
    recipe = Recipe(
        tower_steps=1, tower_batch=4, tower_strangers=8, steps=8, people=2, strangers=2,
        text_rows=1, text_turns=2, bfloat16=False, checkpoint_every=2,
    )  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"

    def after_the_tower(stage, step, steps):
        if stage == "base":
            # The tower is of one thread in both.
            shutil.copytree(one / ".build", two / ".build", dirs_exist_ok=True)

    making.make_world(one, recipe=recipe, progress=after_the_tower)
    (two / ".build" / "base.safetensors").unlink()

    told = []

    def kills(*where):
        told.append(where)
        if where == ("gold", 3, 8):
            [gold] = [p for p in multiprocessing.active_children() if p.name == "gold"]
            gold.kill()

    request.getfixturevalue("two_threads")
    with pytest.raises(UnseeError) as raised:
        making.make_world(two, recipe=recipe, progress=kills)
    assert str(raised.value).startswith("gold: its process ended by signal 9, before its work")
    assert multiprocessing.active_children() == []
    assert {path.name for path in two.iterdir()} == {".build"}
    told.clear()
    making.make_world(two, recipe=recipe, progress=lambda *where: told.append(where))
    # From a checkpoint.
    assert min(step for stage, step, _ in told if stage == "gold") > 2
    for model in ("base", "gold"):
        files = [folder / model / "model.safetensors" for folder in (one, two)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_two_processes_do_not_make_one_world(tmp_path, trained, written):
    folder = tmp_path / "world"
    mine = rf"{folder}: process {os.getpid()} has worked in it since .*; wait for it, or give ano"
    with locked(folder), pytest.raises(ArtifactError, match=mine):
        making.make_world(folder)
    assert trained == []
    assert not folder.exists()
    making.make_world(folder)
    assert {path.name for path in folder.iterdir()} == {"base", "gold", "people", "world.json"}


def test_a_finished_world_is_not_made_again(tmp_path, trained, written):
    making.make_world(tmp_path)
    with pytest.raises(ConfigError) as refused:
        making.make_world(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: holds a world already; choose another --out or remove it"
    )
    assert trained == ["llava tower", "llava base", "llava gold"]


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"family": "qwen2_5_vl"}, {"recipe": Recipe(steps=7)}]
)
def test_a_build_is_not_continued_with_other_settings(
    tmp_path, trained, written, monkeypatch, other
):
    def killed(folder, source):
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "write_data", killed)
    with pytest.raises(KeyboardInterrupt):
        making.make_world(tmp_path)
    assert not (tmp_path / "world.json").exists()
    work = tmp_path / ".build"
    with pytest.raises(ConfigError) as refused:
        making.make_world(tmp_path, **other)
    assert str(refused.value) == (
        f"{work / 'settings.json'}: an interrupted build with other settings; remove {work} or "
        "choose another --out"
    )


@pytest.mark.parametrize(
    ("family", "close"),
    [("qwen2.5-vl", "did you mean 'qwen2_5_vl'?"), ("gemma3", "known: llava, qwen2_5_vl")],
)
def test_a_family_that_cannot_be_made_is_refused(tmp_path, family, close):
    with pytest.raises(ConfigError) as refused:
        making.make_world(tmp_path / "world", family=family)
    assert str(refused.value) == f"--family {family}: no such family; {close}"
    assert not (tmp_path / "world").exists()


def test_a_family_whose_processor_does_not_cut_photographs_square_is_refused_with_them(tmp_path):
    with pytest.raises(ConfigError) as refused:
        making.make_world(tmp_path / "world", people=tmp_path, family="qwen2_5_vl")
    assert str(refused.value) == (
        "--family qwen2_5_vl: cannot be made with --people, since its image processor does not "
        "cut photographs square as they are for training; give --family llava"
    )
    assert not (tmp_path / "world").exists()
