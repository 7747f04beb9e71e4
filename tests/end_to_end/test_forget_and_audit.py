import json
import os
import stat
import sys
from typing import Any

import pytest
import torch

from unsee import report as reports
from unsee.artifacts import apply_weights, locked
from unsee.attacks import attacks_named
from unsee.audit import audit
from unsee.audit.verifying import failed, verify
from unsee.errors import ArtifactError, ConfigError
from unsee.forget import forget
from unsee.models.load import load
from unsee.report.schema import NotScored, Score


@pytest.fixture
def request_(knowing, request_of_people):
    return request_of_people(knowing)


def weights_of(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def value(cell):
    assert isinstance(cell, Score), cell
    return cell.value


def same(vlm, before):
    return all(torch.equal(t, before[name]) for name, t in vlm.model.state_dict().items())


def test_forget_writes_a_private_run_and_gives_the_base_back(knowing, request_, method, tmp_path):
    before = weights_of(knowing)
    out = tmp_path / "run"
    run = forget(knowing, request_, method=method(), out=out, command="unsee forget x")
    assert same(knowing, before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    names = {path.name for path in out.iterdir()}
    assert names == {"manifest.json", "weights.safetensors", "canary.safetensors"}
    assert run.manifest["method"]["name"] == "vkd"
    assert run.manifest["request"]["subjects"] == ["Jane Doe"]
    assert run.manifest["cost"]["trained_parameters"] > 0
    apply_weights(knowing, run.folder)
    assert not same(knowing, before)


def test_an_error_gives_the_base_back_and_leaves_nothing(
    knowing, request_, method, tmp_path, monkeypatch
):
    before = weights_of(knowing)

    def fail(vlm, *args, **more):
        with torch.no_grad():
            next(iter(vlm.model.parameters())).add_(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["unsee.forget"], "train", fail)
    with pytest.raises(KeyboardInterrupt):
        forget(knowing, request_, method=method(), out=tmp_path / "run")
    assert same(knowing, before)
    assert not (tmp_path / "run").exists()


def test_a_killed_run_goes_on_to_the_same_weights(knowing, request_, method, tmp_path, monkeypatch):
    whole = forget(knowing, request_, method=method(), out=tmp_path / "whole")

    def killed(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        forget(knowing, request_, method=method(), out=out, progress=killed)
    assert {path.name for path in out.iterdir()} == {"checkpoint.safetensors", "job.json"}
    with pytest.raises(ArtifactError, match="not a finished run"):
        apply_weights(knowing, out)
    with pytest.raises(ArtifactError, match="unfinished run with another seed; give another --out"):
        forget(knowing, request_, method=method(), seed=1, out=out)
    run = forget(knowing, request_, method=method(), out=out)
    assert run.resumed
    assert run.manifest["files"] == whole.manifest["files"]


def test_a_finished_run_is_returned_or_refused_or_replaced(knowing, request_, method, tmp_path):
    out = tmp_path / "run"
    first = forget(knowing, request_, method=method(), out=out)
    again = forget(knowing, request_, method=method(), out=out)
    assert again.resumed
    assert again.manifest == first.manifest
    with pytest.raises(ArtifactError, match="holds a finished run with another method or settings"):
        forget(knowing, request_, method=method(steps=5), out=out)
    for name in ("report.json", "evidence.json", "answers.jsonl", "mine.txt"):
        (out / name).write_text("{}")
    other = forget(knowing, request_, method=method(steps=5), out=out, overwrite=True)
    assert other.manifest["settings"]["steps"] == 5
    left = {path.name for path in out.iterdir()} - {"manifest.json", *other.manifest["files"]}
    # The base was asked before the run: what it said is not asked again.
    assert left == {"answers.jsonl", "mine.txt"}


def test_two_processes_do_not_share_a_run_folder(knowing, request_, method, tmp_path):
    out = tmp_path / "run"
    mine = rf"{out}: process {os.getpid()} has worked in it since .*; wait for it, or give another"
    with locked(out):
        with pytest.raises(ArtifactError, match=mine):
            forget(knowing, request_, method=method(), out=out)
        with pytest.raises(ArtifactError, match=mine):
            audit(knowing, request_, out=out)
    assert not out.exists()


def but_for_kl(scores):
    return scores.model_copy(update={"kl_to_base": {}})


def test_a_second_request_goes_on_from_the_first(
    knowing, knowing_folder, request_, method, tmp_path
):
    base = weights_of(knowing)
    one = forget(knowing, request_, method=method(), out=tmp_path / "one")
    apply_weights(knowing, one)
    first = weights_of(knowing)
    two = forget(knowing, request_, method=method(lr=1e-3), seed=1, out=tmp_path / "two")
    assert same(knowing, first)
    assert [run.folder for run in knowing.stack] == [str(one.folder)]
    assert [run["folder"] for run in two.manifest["stack"]] == [str(one.folder)]
    fresh = load(knowing_folder, dtype="float32", device="cpu")
    with pytest.raises(ArtifactError, match="two: holds a finished run with other artifacts"):
        forget(fresh, request_, method=method(lr=1e-3), seed=1, out=two.folder)
    with pytest.raises(ArtifactError, match="one: this run is made on top of it; give another"):
        forget(knowing, request_, method=method(), out=one.folder, overwrite=True)
    assert (one.folder / "manifest.json").exists()

    with pytest.raises(ArtifactError, match=r"two: made on top of .*one .*, got the base alone"):
        audit(fresh, request_, artifact=two, out=tmp_path / "audit")
    assert not (tmp_path / "audit").exists()
    result = audit(fresh, request_, artifact=[one, two], out=tmp_path / "audit")
    assert same(fresh, base)
    assert fresh.stack == ()
    assert [run["folder"] for run in result.data["artifacts"]] == [
        str(one.folder),
        str(two.folder),
    ]
    assert result.seeds == [1]
    alone = audit(fresh, request_, artifact=one, out=tmp_path / "audit")
    assert alone.models["base"] == result.models["base"]
    # On an erased model the run on top is compared with that, and no answer of the base is reused.
    apply_weights(fresh, one)
    on_top = audit(fresh, request_, artifact=two, out=tmp_path / "audit")
    assert same(fresh, first)
    assert but_for_kl(on_top.models["base"]) == but_for_kl(alone.models["erased"])
    assert but_for_kl(on_top.models["erased"]) == but_for_kl(result.models["erased"])
    assert on_top.models["erased"].kl_to_base != result.models["erased"].kl_to_base


def test_a_killed_run_on_top_goes_on_with_the_same_runs_beneath_only(
    knowing, knowing_folder, request_, method, tmp_path
):
    one = forget(knowing, request_, method=method(), out=tmp_path / "one")
    apply_weights(knowing, one)

    def killed(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    two = tmp_path / "two"
    with pytest.raises(KeyboardInterrupt):
        forget(knowing, request_, method=method(), seed=1, out=two, progress=killed)
    fresh = load(knowing_folder, dtype="float32", device="cpu")
    with pytest.raises(ArtifactError, match="unfinished run with other artifacts beneath it"):
        forget(fresh, request_, method=method(), seed=1, out=two)
    resumed = forget(knowing, request_, method=method(), seed=1, out=two)
    assert resumed.resumed
    whole = forget(knowing, request_, method=method(), seed=1, out=tmp_path / "whole")
    assert resumed.manifest["files"] == whole.manifest["files"]


def test_audit_compares_base_and_erased_and_resumes(
    knowing, request_, method, tmp_path, monkeypatch
):
    before = weights_of(knowing)
    run = forget(knowing, request_, method=method(), out=tmp_path / "run")
    result = audit(knowing, request_, artifact=run, out=tmp_path / "run", command="unsee audit")
    assert same(knowing, before)
    assert result.summary.reference == "strangers"
    assert result.models.keys() == {"base", "erased"}
    assert value(result.models["base"].cell("forget_seen")) == 1.0
    assert value(result.models["base"].cell("forget_seen", "exact_memorisation")) > 0.9
    told = result.models["erased"].scores["forget_seen"]
    assert {"answer_probability_ks_retain", "truth_ratio_ks"} & told.keys() == {
        "answer_probability_ks_retain"
    }
    assert result.data["text_logits_bit_identical"] == {"value": True, "n": 6}
    assert result.data["changed_tensors"]["language"] == 0
    moved = result.models["erased"].kl_to_base
    assert "retain_unseen" in moved
    assert "forget_seen" not in moved
    # Text-only answers cannot move where the language model is the same.
    assert moved["forget_text"].value < 1e-6 < moved["retain_unseen"].value
    checks, _ = verify(tmp_path / "run")
    assert not failed(checks), checks
    celebrity = result.models["base"].cell("celebrity")
    assert isinstance(celebrity, NotScored)
    assert celebrity.not_scored.startswith("no known people were named")
    assert not any(example.photo for example in result.examples)
    assert reports.load(tmp_path / "run") == result
    for name in ("report.md", "report.html"):
        assert "Jane Doe" in (tmp_path / "run" / name).read_text()

    def never(*args, **more):
        raise AssertionError("asked again")

    for name in ("generate_answers", "answer_scores"):
        monkeypatch.setattr(sys.modules["unsee.replies"], name, never)
    monkeypatch.setattr(sys.modules["unsee.audit.drift"], "_turn", never)
    with (tmp_path / "run" / "answers.jsonl").open("a") as file:
        file.write('{"model": "cut sho')
    again = audit(knowing, request_, artifact=run, out=tmp_path / "run", command="unsee audit")
    assert again.models == result.models


def test_attacks_are_asked_once_and_leave_the_base_as_it_was(
    knowing, tiny_vlm, request_, method, tmp_path, monkeypatch
):
    before = weights_of(knowing)
    run = forget(knowing, request_, method=method(), out=tmp_path / "run")
    out = tmp_path / "audit"
    plain = audit(knowing, request_, artifact=run, gold=tiny_vlm, out=out)
    assert "Attempts" not in (out / "report.md").read_text()
    assert "attacks" not in plain.data

    def attacked(**more):
        attacks = attacks_named("prefix,describe,flip,merge,removal,gate_images")
        return audit(
            knowing, request_, artifact=run, gold=tiny_vlm, out=out, attacks=attacks,
            control=run, **more,
        )  # fmt: skip

    asked = []

    def killed(stage, done, total):
        asked.append(stage)
        if stage == "base: attacks" and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attacked(progress=killed)
    assert same(knowing, before)
    assert "erased: attacks" in asked
    result = attacked()
    assert same(knowing, before)
    for name, scores in plain.models.items():
        assert result.models[name].scores == scores.scores
    found: Any = result.models["erased"].attacks
    assert found["removal"].not_scored == "there is no eraser to take off"
    assert found["gate_images"].not_scored == "there is no eraser whose gate could be kept silent"
    assert found["prefix"].budget["tries"] == 3
    assert {found[name].group for name in ("prefix", "flip", "merge")} == {
        "prompts", "images", "weights",
    }  # fmt: skip
    gold: Any = result.models["gold"].attacks
    gains = [cells["prefix"].value - cells["prefix"].plain for cells in (found, gold)]
    assert found["prefix"].control["recovered"] == pytest.approx(gains[0] - gains[1])
    # This gold has another vocabulary, so that it cannot be mixed with base.
    assert found["merge"].above_gold == gold["merge"]
    assert gold["merge"].not_scored == "its weights are not laid out like base's"
    assert any("Attack removal: not run" in line for line in result.verdict.not_run)
    assert "## Attempts to bring it back" in (out / "report.md").read_text()
    assert reports.load(out) == result

    def never(*args, **more):
        raise AssertionError("asked again")

    monkeypatch.setattr(sys.modules["unsee.replies"], "generate_answers", never)
    again = attacked()
    assert again.models == result.models
    with pytest.raises(ConfigError, match="a control shows the power of attacks, got none"):
        audit(knowing, request_, control=run)


def test_audit_of_the_base_alone_claims_nothing(knowing, request_):
    result = audit(knowing, request_)
    assert result.method.kind == "none"
    assert result.models.keys() == {"base"}
    assert result.verdict.rung == "not forgotten"
    assert "not_scored" in result.data["text_logits_bit_identical"]


def test_attacks_that_need_another_model_are_refused_by_name_and_the_others_run(knowing, request_):
    result = audit(knowing, request_, attacks=attacks_named("prefix,merge,removal"))
    found: Any = result.models["base"].attacks
    assert found["merge"].not_scored == "the erased model has base's own weights"
    assert found["removal"].not_scored == "there is no eraser to take off"
    assert found["prefix"].n == 2
    assert found["prefix"].above_gold.not_scored == "there is no gold model"
    lines = result.verdict.not_run
    assert "Attack merge: not run, since the erased model has base's own weights." in lines
    what = "Trick questions and rewordings meant to draw the answers out"
    # It was run: this base alone forgets too much of its own under it.
    assert f"{what}: no power on this model." in lines


def test_audit_beside_gold_and_photos_on_request(knowing, tiny_vlm, request_):
    result = audit(knowing, request_.split, erased=tiny_vlm, gold=tiny_vlm, embed_photos=True)
    assert result.summary.reference == "gold"
    assert value(result.models["gold"].cell("forget_seen")) == 0.0
    assert any(example.photo for example in result.examples)


def test_audit_refuses_an_artifact_and_a_model(knowing, request_, tmp_path):
    with pytest.raises(ConfigError, match="got both; give one"):
        audit(knowing, request_, artifact=tmp_path, erased=knowing)


def test_audit_refuses_an_artifact_of_another_base(knowing, tiny_vlm, request_, method, tmp_path):
    run = forget(knowing, request_, method=method(), out=tmp_path / "run")
    with pytest.raises(ArtifactError, match="load the model it was made for"):
        audit(tiny_vlm, request_, artifact=run, out=tmp_path / "audit")
    assert not (tmp_path / "audit").exists()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["kind"] == "weights"
