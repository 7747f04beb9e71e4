"""Trials of settings on people that serve choices alone."""

import json
import tomllib
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from unsee import tune as tuning
from unsee.cli import app
from unsee.errors import ArtifactError, ConfigError, DataError
from unsee.methods.ga import GA
from unsee.methods.grad_diff import GradDiff
from unsee.settings import Span
from unsee.trials import rehearsal
from unsee.tune import Trial, Tuned, tune

FIXED = {"steps": 8, "variants": 2, "checkpoint_every": 0}


def settings_of(tuned):
    return [trial.settings for trial in tuned.trials]


@pytest.fixture
def asked(knowing, request_of_people):
    return request_of_people(knowing)


def test_trials_differ_are_judged_on_both_and_leave_the_model_alone(knowing, asked, tmp_path):
    before = {name: tensor.clone() for name, tensor in knowing.model.state_dict().items()}
    tuned = tune(knowing, asked, method=GradDiff, fixed=FIXED, trials=3, out=tmp_path / "t")
    assert len({json.dumps(s) for s in settings_of(tuned)}) == 3
    for trial in tuned.trials:
        assert set(trial.settings) == {"lr", "retain_weight"}
        assert 1e-6 <= trial.settings["lr"] <= 1e-3
        assert trial.without or 0 <= trial.summary["keep"] <= 1
    assert all(torch.equal(before[n], t) for n, t in knowing.model.state_dict().items())
    assert tuned.settings == {**FIXED, **tuned.knee.settings}


def test_the_first_trial_is_the_methods_own_defaults(knowing, asked, tmp_path, monkeypatch):
    tuned = tune(knowing, asked, method=GradDiff, fixed=FIXED, trials=1, out=tmp_path / "own")
    own = {name: GradDiff.model_fields[name].default for name in ("lr", "retain_weight")}
    assert settings_of(tuned) == [own]
    monkeypatch.setattr(GradDiff, "space", {"lr": Span(1e-4, 1e-3), "steps": (1, 2, 3)})
    fixed = {"variants": 2, "checkpoint_every": 0}
    tuned = tune(knowing, asked, method=GradDiff, fixed=fixed, trials=1, out=tmp_path / "outside")
    assert settings_of(tuned) == [{"lr": 1e-4, "steps": 2}]


def test_going_on_gives_what_one_go_gives(knowing, asked, tmp_path):
    whole = tune(knowing, asked, method=GA, fixed=FIXED, trials=3, out=tmp_path / "whole")
    tune(knowing, asked, method=GA, fixed=FIXED, trials=2, out=tmp_path / "parts")
    parts = tune(knowing, asked, method=GA, fixed=FIXED, trials=3, out=tmp_path / "parts")
    assert settings_of(parts) == settings_of(whole)
    assert [t.summary for t in parts.trials] == [t.summary for t in whole.trials]


def test_a_folder_with_other_trials_is_refused(knowing, asked, tmp_path):
    tune(knowing, asked, method=GA, fixed=FIXED, trials=1, out=tmp_path)
    with pytest.raises(ArtifactError, match="trials of another method, fixed, space"):
        tune(knowing, asked, method=GradDiff, fixed={**FIXED, "lr": 1e-5}, trials=1, out=tmp_path)
    (tmp_path / tuning.TUNING).write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        tune(knowing, asked, method=GA, fixed=FIXED, trials=1, out=tmp_path)


def test_a_model_that_lost_all_it_kept_is_asked_no_more(knowing, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(GA, "space", {"lr": (0.1,)})
    tuned = tune(knowing, asked, method=GA, fixed=FIXED, trials=1, out=tmp_path)
    assert tuned.trials[0].summary == {}
    assert "right answers left on a first look at what is kept" in tuned.trials[0].without
    with pytest.raises(ConfigError, match="none of 1 trials has figures"):
        _ = tuned.settings


def test_nothing_to_search_is_said(knowing, asked, tmp_path):
    with pytest.raises(ConfigError, match="ga: nothing to search"):
        tune(knowing, asked, method=GA, fixed={"lr": 1e-5, "steps": 3}, trials=1, out=tmp_path)


def trial(number, gap, keep, score):
    return Trial(number, {}, {"forget_gap": gap, "keep": keep, "score": score})


def test_front_and_knee_by_hand():
    tuned = Tuned(
        {"fixed": {}},
        (
            trial(0, 0.5, 0.9, 0.64),
            trial(1, 0.2, 0.8, 0.80),
            trial(2, 0.5, 0.8, 0.62),
            Trial(3, {}, without="collapsed"),
            trial(4, 0.1, 0.3, 0.45),
        ),
    )
    assert [t.number for t in tuned.front] == [0, 1, 4]
    assert tuned.knee is tuned.trials[1]


def test_the_verb_writes_a_recipe_that_forget_takes(people, knowing_folder, tmp_path):
    sides = ["--subject", people / "forget", "--retain", people / "retain"]
    sides += ["--general", people / "general", "--strangers", people / "strangers"]
    words = ["tune", "grad_diff", knowing_folder, *sides, "--trials", 2, "--out", tmp_path / "t"]
    words += ["--set", "steps=8", "--set", "variants=2", "--quiet"]
    told = CliRunner().invoke(app, [str(word) for word in words])
    assert told.exit_code == 0, told.output
    assert "2 trials" in told.output
    table = tomllib.loads((tmp_path / "t" / "recipe.toml").read_text())
    assert table["method"]["name"] == "grad_diff"
    assert (tmp_path / "t" / "front.svg").read_text().startswith("<svg")
    words = ["forget", "--recipe", tmp_path / "t" / "recipe.toml", *sides, "--dry-run", "--json"]
    again = CliRunner().invoke(app, [str(word) for word in words])
    assert again.exit_code == 0, again.output


def test_a_rehearsal_leaves_the_audit_alone(knowing, asked):
    within = rehearsal(asked)
    audited = {
        r.image
        for name in ("forget_unseen", "retain_unseen")
        for r in asked.split.audit.get(name, ())
    }
    touched = [*within.split.forget, *within.split.retain]
    touched += [record for records in within.split.audit.values() for record in records]
    assert not audited & {record.image for record in touched}
    given = {record.image for record in within.split.forget}
    apart = {record.image for record in within.split.audit["forget_unseen"]}
    assert apart
    assert not given & apart
    assert given | apart == {record.image for record in asked.split.forget}
    kept = {record.image for record in within.split.retain}
    assert not kept & {r.image for r in within.split.audit["retain_unseen"]}
    assert rehearsal(asked).split == within.split


def test_one_photo_is_too_few_to_rehearse(asked):
    photo = asked.split.forget[0].image
    few = replace(asked.split, forget=tuple(r for r in asked.split.forget if r.image == photo))
    with pytest.raises(DataError, match="expected two or more photos"):
        rehearsal(replace(asked, split=few))


def test_the_budget_ends_a_search(knowing, asked, tmp_path):
    tuned = tune(knowing, asked, method=GA, fixed=FIXED, out=tmp_path, minutes=0.0)
    assert len(tuned.trials) == 1


def test_forget_chooses_settings_by_itself_and_stays_with_them(people, knowing_folder, tmp_path):
    sides = ["--subject", people / "forget", "--retain", people / "retain"]
    sides += ["--general", people / "general", "--strangers", people / "strangers"]
    words = ["forget", knowing_folder, *sides, "--method", "grad_diff", "--auto", "--budget", 0]
    words += ["--set", "method.steps=4", "--set", "method.variants=2", "--out", tmp_path / "run"]
    for state in ("done", "was done already"):
        told = CliRunner().invoke(app, [str(word) for word in [*words, "--quiet"]])
        assert told.exit_code == 0, told.output
        assert f"{tmp_path / 'run'}: {state}" in told.output
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    table = tomllib.loads((tmp_path / "run" / "tune" / "recipe.toml").read_text())["method"]
    assert table.pop("name") == "grad_diff"
    assert table.items() <= manifest["settings"].items()
    assert manifest["settings"]["steps"] == 4
    trials = json.loads((tmp_path / "run" / "tune" / tuning.TUNING).read_text())["trials"]
    assert len(trials) == 1


def test_auto_needs_a_budget():
    told = CliRunner().invoke(app, ["forget", "m", "--subject", "x", "--auto"])
    assert told.exit_code == 2
    assert "expected --auto with --budget MINUTES" in told.output


def test_an_unknown_method_is_named():
    told = CliRunner().invoke(app, ["tune", "nppo"])
    assert told.exit_code == 2
    assert "unknown method 'nppo'; did you mean 'npo'?" in told.output
