import json
import shutil

import pytest
from typer.testing import CliRunner

import unsee.forecast
from unsee.cli import app
from unsee.forecast import Forecast


@pytest.fixture
def place(tiny_folder, photograph, tmp_path, monkeypatch):
    """A model without weights, and folders of people."""
    shutil.copytree(tiny_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    people = {"subject": ("Ada", "Bo"), "retain": ("Cy", "Di"), "general": ("Eve", "Flo")}
    for number, (side, names) in enumerate(people.items()):
        for name in names:
            (tmp_path / side / name).mkdir(parents=True)
            for index in range(2):
                picture = photograph(10 * number + len(name) * ord(name[0]), index)
                picture.save(tmp_path / side / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def foretold(monkeypatch):
    given = []

    def forecast(place, split, method, *, seed, progress):
        given.append((place, split, method))
        return Forecast(7, 57_632, 9_120, 130.0, 4.2, 812.6, None, (3, 2), (3, 2))

    monkeypatch.setattr(unsee.forecast, "forecast", forecast)
    return given


def words(*more):
    sides = [word for side in ("subject", "retain", "general") for word in (f"--{side}", side)]
    return ["forget", "model", *sides, "--out", "run", "--dry-run", "--quiet", *more]


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_printed_and_that_nothing_is_written(place, foretold):
    before = listed(place)
    result = CliRunner().invoke(app, words("--set", "method.steps=7"))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        "forget: Ada, Bo (4 photos, 88 questions; scope visual)\n"
        "keep: 24 questions on other people, 24 on strangers and the like, 24 on what is "
        "visible\n"
        "method: vkd, into run\n"
        "steps: 7\n"
        "trained: 9,120 numbers; the model has 57,632\n"
        "time: 2 min a run, 4 s before step 1\n"
        "peak memory: 813 MB\n"
        "predicted from a few real steps of the whole model with random weights on this machine; "
        "loading the model and asking it first come on top\n"
    )
    assert listed(place) == before
    ((name, split, method),) = foretold
    assert (name, method.steps, split.subjects) == ("model", 7, ("Ada", "Bo"))


def test_recipe_and_forecast_for_machines(place):
    result = CliRunner().invoke(app, words("--json", "--set", "method.steps=7"))
    told = json.loads(result.stdout)
    assert (told["recipe"]["method"]["name"], told["recipe"]["method"]["steps"]) == ("vkd", 7)
    assert told["recipe"]["seeds"] == [0]
    assert told["subjects"] == ["Ada", "Bo"]
    assert told["forecast"]["wall_s"] == 130.0


def test_an_eraser_trains_nothing(place, foretold):
    result = CliRunner().invoke(app, words("--method", "mllmeraser"))
    assert result.stdout.endswith("time and memory: not predicted for methods that train nothing\n")
    assert foretold == []


def test_several_seeds_are_several_runs(place):
    result = CliRunner().invoke(app, words("--set", "seeds=[0,1]"))
    assert "steps: 2 runs of 7\n" in result.stdout
