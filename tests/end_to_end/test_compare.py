"""Many methods on the same people, as one table."""

import json

import pytest
from typer.testing import CliRunner

from unsee.cli import app

ERASER = (
    'name = "mllmeraser", direction = "subject", variants = 2, false_fire = 0.05, layers = [1, 2], '
    "ridge = 0.01"
)
QUICK = "steps = 30\nvariants = 2\nlr = 3e-3\ncheckpoint_every = 0\n"


def unsee(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def recipe(people, knowing_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "vkd.toml").write_text(f'model = "any"\n[method]\nname = "vkd"\n{QUICK}')
    (folder / "world.toml").write_text(
        f'model = "{knowing_folder}"\nsubjects = ["{people / "forget"}"]\nseeds = [0, 1]\n'
        f'retain = "{people / "retain"}"\ngeneral = "{people / "general"}"\n'
        f'strangers = "{people / "strangers"}"\nout = "{folder / "runs"}"\n'
        '[rows.none]\ncontrol = "none"\n'
        '[rows.told]\ncontrol = "system_prompt"\n'
        '[rows.vkd]\nrecipe = "vkd.toml"\n'
        f'[rows.ascent]\nmethod = {{name = "ga", lr = 1e-2, steps = 20, variants = 2}}\n'
        '[rows."not here"]\nmethod = {name = "rmu", layer = 99}\n'
        '[rows."vkd + mllmeraser"]\nover = ["vkd", "eraser"]\n'
        f"[rows.eraser]\nmethod = {{{ERASER}}}\n"
    )
    return folder / "world.toml"


@pytest.fixture(scope="module")
def table(recipe):
    unsee("compare", recipe, "--jobs", 1, "--quiet", "--json")
    return json.loads((recipe.parent / "runs" / "comparison.json").read_text())


def test_every_row_is_there_with_its_score_or_its_reason(table):
    assert {"none", "told", "vkd", "ascent"} <= set(table["rows"])
    assert "not here" in table["failed"]
    assert "layer" in table["failed"]["not here"][0]
    assert set(table["failed"]) == {"not here"}
    assert table["rows"]["eraser"]["kind"] == "eraser"
    assert table["rows"]["vkd + mllmeraser"]["kind"] == "weights + eraser"
    for row in ("eraser", "vkd + mllmeraser"):
        left = table["rows"][row]["scores"]["forget_seen"]["accuracy"]
        assert left["value"] < table["base"]["forget_seen"]["accuracy"]["value"]
        assert isinstance(table["rows"][row]["summary"]["score"], float)
    assert table["rows"]["none"]["summary"]["score"] == 0.0
    assert table["rows"]["none"]["verdict"]["rung"] == "not forgotten"
    assert table["rows"]["vkd"]["summary"]["score"] > 0.5
    assert table["rows"]["vkd"]["kind"] == "weights"
    assert table["rows"]["none"]["kind"] == table["rows"]["told"]["kind"] == "control"
    assert table["ranking"][0] != "none"
    assert table["first_trained"] in ("vkd", "ascent")


def test_answers_of_all_seeds_are_pooled(recipe, table, tmp_path):
    text = recipe.read_text().replace("seeds = [0, 1]", "seeds = [1]")
    single = recipe.with_name("single.toml")
    single.write_text(text)
    words = ["--rows", "none,vkd", "--results", tmp_path / "t"]
    # Its run is one of the two, which is not made again.
    unsee("compare", single, "--jobs", 1, "--quiet", *words)
    one = json.loads((tmp_path / "t.json").read_text())
    assert (one["request"]["seeds"], table["request"]["seeds"]) == ([1], [0, 1])
    for row in ("none", "vkd"):
        for name, scores in one["rows"][row]["scores"].items():
            cell, pooled = scores["accuracy"], table["rows"][row]["scores"][name]["accuracy"]
            assert pooled.get("n", 0) == 2 * cell.get("n", 0)
        assert one["rows"][row]["scores"]["forget_seen"]["accuracy"]["n"] > 0


def test_what_is_done_is_not_done_again(recipe, table):
    runs = recipe.parent / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("cell.json")}
    assert len(before) >= 2 + 2 + 2 + 2
    unsee("compare", recipe, "--jobs", 1, "--quiet", "--rows", "none,vkd")
    assert {p: p.stat().st_mtime_ns for p in runs.rglob("cell.json")} == before
    short = json.loads((runs / "comparison.json").read_text())
    assert list(short["rows"]) == ["none", "vkd"]
    assert short["rows"]["vkd"] == table["rows"]["vkd"]


def test_what_a_cell_measured_is_verified_like_an_audit(recipe, table):
    runs = recipe.parent / "runs"
    audited = [p for p in sorted(runs.glob("*/audit")) if p.parent.name.startswith("vkd-")]
    assert len(audited) == 2
    told = json.loads(
        unsee("verify", audited[0], "--samples", 8, "--seed", 1, "--quiet", "--json").stdout
    )
    assert told["verified"]
    asked = {c["what"]: c["outcome"] for c in told["checks"] if c["what"].endswith("asked again")}
    assert asked == {"base asked again": "ok", "erased asked again": "ok"}


def test_a_cell_of_another_format_is_measured_again_and_its_run_kept(recipe, table):
    runs = recipe.parent / "runs"
    cell = next(p for p in runs.rglob("cell.json") if p.parent.name.startswith("ga-"))
    whole = json.loads(cell.read_text())
    weights = (cell.parent / "run-0" / "manifest.json").stat().st_mtime_ns
    cell.write_text(json.dumps({**whole, "format": 0, "models": {}}))
    unsee("compare", recipe, "--jobs", 1, "--quiet", "--rows", "none,ascent")
    assert json.loads(cell.read_text())["models"] == whole["models"]
    assert (cell.parent / "run-0" / "manifest.json").stat().st_mtime_ns == weights


def test_runs_in_processes_come_to_the_same(recipe, table, tmp_path):
    words = ["--rows", "none,ascent", "--out", tmp_path / "runs", "--results", tmp_path / "t"]
    unsee("compare", recipe, "--jobs", 2, "--quiet", *words)
    again = json.loads((tmp_path / "t.json").read_text())
    for row in ("none", "ascent"):
        assert again["rows"][row]["scores"] == table["rows"][row]["scores"]


def test_the_pages_show_what_the_json_says(recipe, table):
    unsee("compare", recipe, "--jobs", 1, "--quiet")
    text = (recipe.parent / "runs" / "comparison.md").read_text()
    page = (recipe.parent / "runs" / "comparison.html").read_text()
    score = f"{table['rows']['vkd']['summary']['score']:.3f}"
    assert f"| vkd | weights | {score} |" in text
    assert "not here" in text.split("## Rows without figures")[1]
    left = 100 * table["base"]["forget_unseen"]["accuracy"]["value"]
    assert "`told` changes no weight" in text
    assert f"{left:.1f} % of `forget_unseen`" in text
    assert score in page
    assert "<script" not in page
    assert "<svg" in page


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (('name = "ga"', 'name = "gaa"'), "rows.ascent: unknown method 'gaa'; did you mean 'ga'?"),
        (("lr = 1e-2", "lrr = 1e-2"), "rows.ascent: method ga: lrr: unknown setting"),
        (('"vkd.toml"', '"vk.toml"'), "rows.vkd: "),
        (('"eraser"]', '"erasure"]'), "over: expected names of other rows, got erasure"),
        (('control = "none"', ""), "expected one of control, recipe, method and over, got none"),
        (("seeds = [0, 1]", "seeds = []"), "seeds: "),
        (("[rows.none]", '[rows."none, at all"]'), "without a comma, which --rows parts at"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line(recipe, tmp_path, change, line):
    text = recipe.read_text()
    assert change[0] in text
    (tmp_path / "vkd.toml").write_text((recipe.parent / "vkd.toml").read_text())
    (tmp_path / "world.toml").write_text(text.replace(*change))
    told = unsee("compare", tmp_path / "world.toml", code=2).output
    assert line in " ".join(told.split())


def test_an_unknown_row_is_named(recipe):
    told = unsee("compare", recipe, "--rows", "vdk", code=2).output
    assert "unknown row 'vdk'; did you mean 'vkd'?" in " ".join(told.split())


def test_retrain_needs_a_model_that_never_knew(recipe, tmp_path):
    text = recipe.read_text().replace('control = "none"', 'control = "retrain"')
    (tmp_path / "world.toml").write_text(text)
    (tmp_path / "vkd.toml").write_text((recipe.parent / "vkd.toml").read_text())
    told = unsee("compare", tmp_path / "world.toml", "--rows", "none", code=2).output
    assert "rows.none: expected a model that never knew; give gold" in " ".join(told.split())
