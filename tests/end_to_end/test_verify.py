"""A report is checked: what was measured holds, and every change is found."""

import hashlib
import json
import re
import shlex
import shutil
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from unsee.audit import again
from unsee.audit.verifying import ATTESTS
from unsee.cli import app
from unsee.models.tiny import tiny_llava
from unsee.report import evidence
from unsee.report.evidence import Closing, Evidence, Figure, Questions, Replied, Run, chained

SAMPLES = ["--samples", "12", "--seed", "3", "--quiet"]


def unsee(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words):
    result = unsee(*words)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory, people, knowing_folder):
    """A folder with a run, a second one, and photos; not to be changed."""
    place = tmp_path_factory.mktemp("verify")
    shutil.copytree(people, place / "people")
    shutil.copytree(knowing_folder, place / "model")
    few = ["--set", "method.steps=2", "--set", "method.variants=2", "--quiet"]
    for name, seed in (("run", 0), ("other", 1)):
        done("forget", place / "model", *sides(place), "--out", place / name, *few, "--seed", seed)
    audit(place)
    return place


def sides(place):
    folders = {name: place / "people" / name for name in ("retain", "general", "strangers")}
    words = [word for name, folder in folders.items() for word in (f"--{name}", folder)]
    return ["--subject", place / "people" / "forget", *words]


def audit(place, *more):
    words = ["audit", place / "model", "--artifact", place / "run", *sides(place), *more, "--quiet"]
    words = [str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["unsee", *words])
        done(*words)


@pytest.fixture
def run(place, tmp_path):
    """The run in a folder of its own, so that it can be changed."""
    return shutil.copytree(place / "run", tmp_path / "run")


def failing(result):
    """Lines of a verification that failed."""
    assert result.exit_code == 1, result.output
    assert result.output.splitlines()[-1] == ATTESTS
    assert result.output.splitlines()[-2].endswith(": does NOT hold")
    lines = [line for line in result.output.splitlines() if line.startswith("failed")]
    assert lines
    return [line.removeprefix("failed").strip() for line in lines]


def rechained(folder, change):
    """The evidence with its entries changed and all hashes computed anew."""
    found = evidence.load(folder)
    assert isinstance(found, Evidence)
    evidence.save(chained([change(link.entry) for link in found.links]), folder)


def fit(folder):
    """The evidence made to fit a report that was changed."""
    digest = hashlib.sha256((folder / "report.json").read_bytes()).hexdigest()
    rechained(
        folder,
        lambda entry: (
            entry.model_copy(update={"report": digest}) if isinstance(entry, Closing) else entry
        ),
    )


def test_what_was_measured_holds(place, run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    result = done("verify", run, *SAMPLES)
    lines = result.stdout.splitlines()
    assert lines[-2:] == [f"{run}: holds", ATTESTS]
    said = "\n".join(lines)
    for what in ("chain", "report.json", "figures", "summary", "artifact", "model base"):
        assert f"ok           {what}: " in said
    assert "not checked  signature: there is none" in said
    assert "ok           base asked again: 12 questions: the same answers, and " in said
    assert "ok           erased asked again: " in said
    assert "12 questions drawn with --seed 3; attacks are not tried again" in said
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    machine = json.loads(done("verify", run, "--samples", 0, "--json", "--quiet").stdout)
    assert machine["verified"] is True
    assert machine["attests"] == ATTESTS


def test_nobody_can_be_read_in_it(place):
    text = (place / "run" / "evidence.json").read_text()
    names = ("Jane", "Doe", "Oslo", "Lima", "jane_doe", str(place))
    assert not [name for name in names if name in text]


def test_it_has_every_figure_and_what_it_was_made_with(place):
    found = evidence.load(place / "run")
    assert isinstance(found, Evidence)
    (first,) = found.of(Run)
    assert first.models.keys() == {"base", "erased"}
    assert [a.kind for a in first.artifacts] == ["weights"]
    assert {"torch", "unsee"} <= first.versions.keys()
    # Distances are between two lots of samples, both of which are there.
    bare = found.of(Closing)[0].without_samples
    assert all(re.search(r"_(ks|js)(_retain)?$", name) for name in bare)
    sets = {entry.set for entry in found.of(Questions)}
    assert {"forget_seen", "strangers/forget_seen"} <= sets
    assert {entry.model for entry in found.of(Replied)} == {"base", "erased"}
    seen = next(f for f in found.of(Figure) if f.name == "base, forget_seen, accuracy")
    assert seen.value == 1.0
    assert {score for score in seen.scores if score is not None} == {1.0}


def test_signed_by_one_and_not_by_another(place, run, tmp_path):
    pytest.importorskip("cryptography", reason="signatures need the package cryptography")
    mine, other = tmp_path / "mine", tmp_path / "other"
    for key in (mine, other):
        done("verify", "--new-key", key)
    audit(place, "--sign", mine, "--out", run)
    said = done("verify", run, "--key", f"{mine}.pub", *SAMPLES).stdout
    assert "ok           signature: of key " in said
    (fault,) = failing(unsee("verify", run, "--key", f"{other}.pub", *SAMPLES))
    assert fault.startswith("signature: of another key: ")
    rechained(run, lambda entry: entry)
    (fault,) = failing(unsee("verify", run, "--key", f"{mine}.pub", *SAMPLES))
    assert fault.startswith("signature: there is none; expected key ")


def test_a_changed_figure_of_the_report(run):
    text = (run / "report.json").read_text()
    table = json.loads(text)
    table["models"]["erased"]["scores"]["forget_seen"]["accuracy"]["value"] /= 2
    (run / "report.json").write_text(json.dumps(table))
    faults = failing(unsee("verify", run, *SAMPLES))
    assert "report.json: differs from the one that the evidence was written for" in faults
    assert any(f.startswith("figures: erased, forget_seen, accuracy: ") for f in faults)


def test_a_verdict_typed_by_hand(run):
    """Also where the evidence was made to fit."""
    table = json.loads((run / "report.json").read_text())
    table["verdict"]["rung"] = "behaviourally forgotten"
    (run / "report.json").write_text(json.dumps(table))
    fit(run)
    faults = failing(unsee("verify", run, *SAMPLES))
    assert faults == [
        "summary: verdict: 'behaviourally forgotten', but the figures support 'not forgotten'"
    ]


def test_a_report_that_is_missing(run):
    (run / "report.json").unlink()
    assert failing(unsee("verify", run)) == [f"report.json: {run}/report.json: is missing"]


def test_evidence_that_is_cut_short(run):
    file = run / "evidence.json"
    file.write_bytes(file.read_bytes()[:-40])
    assert failing(unsee("verify", run)) == [
        "evidence.json: it is not JSON; it was changed or cut short"
    ]


def test_a_changed_entry(run):
    file = run / "evidence.json"
    text = file.read_text()
    place = text.index('"scores":[1.0') + len('"scores":[')
    file.write_text(text[:place] + "0.0" + text[place + 3 :])
    faults = failing(unsee("verify", run, *SAMPLES))
    assert faults[0].startswith("chain: entry ")
    assert "does not follow from the one before it; it was changed, moved" in faults[0]
    assert any("is not the mean of its samples" in fault for fault in faults)


def test_invented_replies_are_found_by_asking_again(run):
    """By whoever computes every hash anew."""

    def invent(entry):
        if isinstance(entry, Replied) and entry.model == "erased":
            return entry.model_copy(update={"replies": ["0" * 32] * len(entry.replies)})
        return entry

    rechained(run, invent)
    (fault,) = failing(unsee("verify", run, *SAMPLES))
    # Base alone is asked about strangers.
    assert re.match(r"erased asked again: (\d+) \(.*\) of \1 answers are other ones$", fault)
    assert done("verify", run, "--samples", 0).exit_code == 0


def test_invented_scores_are_found_by_asking_again(run, monkeypatch):
    """Replies as they are, and a model that is made to look as if it did not know."""
    score = again.sample_sets

    def otherwise(*args, **more):
        found: Any = score(*args, **more)
        for by_metric in found.values():
            by_metric["accuracy"] = {row: 1 - s for row, s in dict(by_metric["accuracy"]).items()}
        return found

    monkeypatch.setattr(again, "sample_sets", lambda *a, **m: otherwise(*a, **m))
    faults = failing(unsee("verify", run, *SAMPLES))
    assert all(" scores are other ones" in fault for fault in faults)
    assert not any(" answers are other ones" in fault for fault in faults)


def test_another_run_in_the_place_of_the_artifact(place, run):
    for name in ("manifest.json", "weights.safetensors", "canary.safetensors"):
        shutil.copy(place / "other" / name, run / name)
    (fault,) = failing(unsee("verify", run, *SAMPLES))
    assert fault.startswith(f"artifact: {run} is run ")
    assert "; the audit's was " in fault


def test_an_artifact_of_another_model(run):
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["base_fingerprint"] = "0" * 16
    (run / "manifest.json").write_text(json.dumps(manifest))
    (fault,) = failing(unsee("verify", run, *SAMPLES))
    assert f"made for base {'0' * 16}; the audit's was" in fault


def test_another_model_in_the_place_of_the_base(place, run, tmp_path):
    tiny_llava(tmp_path / "model")
    table = json.loads((run / "report.json").read_text())
    words = shlex.split(table["command"])
    words[2] = str(tmp_path / "model")
    table["command"] = shlex.join(words)
    (run / "report.json").write_text(json.dumps(table))
    fit(run)
    (fault,) = failing(unsee("verify", run, *SAMPLES))
    assert fault.startswith("model base: another model: fingerprint ")


def test_other_photos(place, run, tmp_path):
    """The command of the audit leads to other photos now."""
    folder = place / "people" / "forget" / "jane_doe"
    last = sorted(folder.glob("*.png"))[-1]
    shutil.copy(last, tmp_path / "kept")
    try:
        Image.open(last).rotate(90).save(last)
        faults = failing(unsee("verify", run, *SAMPLES))
    finally:
        shutil.move(tmp_path / "kept", last)
    assert {fault.split(":")[0] for fault in faults} == {"questions"}
    assert any(fault.startswith("questions: forget_unseen: ") for fault in faults)
    assert all("photos, questions or right answers are other ones" in fault for fault in faults)


def test_photos_that_are_gone_are_one_line_and_the_rest_is_checked(place, run, tmp_path):
    shutil.move(place / "people" / "general", tmp_path / "elsewhere")
    try:
        result = unsee("verify", run, *SAMPLES)
    finally:
        shutil.move(tmp_path / "elsewhere", place / "people" / "general")
    assert result.exit_code == 2
    assert "ok           figures: " in result.stdout
    assert result.stderr.startswith(f"unsee: {place}/people/general: ")
    assert result.stderr.count("\n") == 1


def test_a_command_that_this_version_does_not_read(run):
    table = json.loads((run / "report.json").read_text())
    table["command"] += " --of-a-later-version 3"
    (run / "report.json").write_text(json.dumps(table))
    fit(run)
    result = unsee("verify", run, *SAMPLES)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"unsee: {run}: its audit cannot be repeated by this version (")
    table["command"] = "python audit.py"
    (run / "report.json").write_text(json.dumps(table))
    fit(run)
    said = done("verify", run, *SAMPLES).stdout
    assert (
        "not checked  asked again: report.json names no unsee audit or demo that could be" in said
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify"], "expected a run to check, or --new-key FILE; give one of them"),
        (
            ["verify", "{tmp}"],
            "{tmp}/evidence.json: expected evidence, found no such file; write it with 'unsee "
            "audit'",
        ),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path):
    result = unsee(*(word.format(tmp=tmp_path) for word in words))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"unsee: {message.format(tmp=tmp_path)}\n"


def test_evidence_of_a_newer_version(run):
    file = run / "evidence.json"
    file.write_text(file.read_text().replace('"format":1', '"format":2', 1))
    result = unsee("verify", run)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"unsee: {file}: expected evidence of format 1, got 2; upgrade unsee to read it\n"
    )
