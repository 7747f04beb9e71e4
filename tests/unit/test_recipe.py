import json
from pathlib import Path

import pytest

from unsee.errors import ConfigError
from unsee.lineup import read_comparison
from unsee.recipe import read_recipe, recipe_of_audit
from unsee.settings import read_toml

FILES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))
COMPARISONS = [path for path in FILES if "rows" in read_toml(path)]
RECIPES = [path for path in FILES if path not in COMPARISONS]


def test_there_are_recipes():
    tuned = {f"world-grad_diff-{kind}.toml" for kind in ("full", "lora")}
    assert {"world-vkd.toml", *tuned} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_resolves(path):
    recipe, method = read_recipe(path, {})
    assert recipe.model.startswith("world:")
    assert recipe.method["name"] == path.stem.removeprefix("world-").split("-")[0]
    assert method.model_dump(mode="json").items() <= recipe.method.items()


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_comparison_resolves_with_a_seed_a_draw(path):
    lineup = read_comparison(path)
    draws = [(recipe.subject, seed) for recipe, seed in lineup.comparison.draws]
    assert draws == [("world:A", 0), ("world:B", 1), ("world:C", 2)]
    stacked = {name: row.over for name, row in lineup.comparison.rows.items() if row.over}
    assert path.stem != "world" or "vkd + mllmeraser" in stacked
    for name, over in stacked.items():
        assert [table["name"] for table in lineup.methods[name]] == list(over)


def test_the_command_line_wins_over_the_file_and_set_over_both(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('model = "a"\nsubject = "b"\n[method]\nname = "vkd"\nsteps = 9\nlr = 0.5\n')
    given = {"model": "c", "subject": None, "method": {"name": "vkd"}}
    recipe, method = read_recipe(path, given, ["method.steps=3"])
    assert (recipe.model, recipe.subject) == ("c", "b")
    assert (method.model_dump()["steps"], method.model_dump()["lr"]) == (3, 0.5)


def test_several_seeds_get_a_folder_each():
    recipe, _ = read_recipe(None, {"model": "a", "subject": "b", "seeds": [0, 1], "out": "r"})
    assert [recipe.folder(seed) for seed in recipe.seeds] == [Path("r/seed-0"), Path("r/seed-1")]
    single, _ = read_recipe(None, {"model": "a", "subject": "b", "out": "r"})
    assert single.folder(0) == Path("r")


def test_faults_name_file_and_setting(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('model = "a"\nsubject = "b"\nscope = "all"\nphotoz = 3\n')
    with pytest.raises(ConfigError, match=r"r\.toml: scope: .*; photoz: unknown setting; did you"):
        read_recipe(path, {})


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "subject: missing; give --subject, --request or --dataset"),
        ({"subject": "a", "request": "b"}, "got --subject and --request; give one (got 'a')"),
        ({"request": "a", "dataset": "b"}, "got --request and --dataset; give one"),
    ],
)
def test_exactly_one_source_of_people(given, fault):
    with pytest.raises(ConfigError) as caught:
        read_recipe(None, {"model": "m", **given})
    assert str(caught.value).endswith(fault)
    for name in ("subject", "request", "dataset"):
        assert getattr(read_recipe(None, {"model": "m", name: "x"})[0], name) == "x"


def test_a_method_must_be_text():
    with pytest.raises(ConfigError, match=r"method\.name: expected text, got 3"):
        read_recipe(None, {"model": "a", "subject": "b", "method": {"name": 3}})


def audited(run, **given):
    names = ("subject", "request", "dataset", "retain", "general", "strangers")
    options = dict.fromkeys((*names, "scope", "photos", "holdout", "base"))
    options |= {"model": "m", "subject": "s", "artifact": [] if run is None else ["no-run", run]}
    recipe = recipe_of_audit(options | given)
    assert recipe.unreadable == (0 if run is None else 2)
    return recipe.scope, recipe.holdout, recipe.photos, recipe.part


def test_an_audit_asks_as_its_last_run_was_asked_for_unless_told_otherwise(tmp_path):
    table = dict.fromkeys(("base_fingerprint", "base_source"), "x") | {"kind": "weights"}
    table |= {"format": 1, **{name: {} for name in ("files", "tensors", "canary")}}

    def made(**request):
        told = table | {"request": {"unreadable": ["row 1", "row 7"], **request}}
        (tmp_path / "manifest.json").write_text(json.dumps(told))

    made(scope="both", holdout=0.5, photos_per_person=70)
    assert audited(None) == ("visual", 0.25, 5, "report")
    assert audited(tmp_path) == ("both", 0.5, 5, "report")
    assert audited(tmp_path, scope="visual", holdout=0.0) == ("visual", 0.0, 5, "report")
    made(scope="visual", draw="dev", part="dev", photos_per_person=7)
    assert audited(tmp_path) == ("visual", 0.25, 7, "dev")
    assert audited(tmp_path, photos=3) == ("visual", 0.25, 3, "dev")
    made()
    assert audited(tmp_path) == ("visual", 0.25, 5, "report")
    made(scope="everywhere")
    with pytest.raises(ConfigError, match="scope: input should be 'visual' or 'both'"):
        audited(tmp_path)
