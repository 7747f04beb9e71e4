import json
import os
import stat

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unsee.artifacts import (
    apply_weights,
    load_manifest,
    refuse_existing_run,
    save_weights,
    take_canary,
)
from unsee.artifacts import weights as weights_module
from unsee.artifacts.files import _sha256
from unsee.errors import ArtifactError
from unsee.models.load import load
from unsee.models.tiny import tiny_llava

FIELDS = {"method": "vkd", "settings": {"steps": 2}, "seeds": [0], "request": {"scope": "visual"}}


def change(vlm, parts=("projector",), by=0.05):
    """Move some parameters, as training does, and name them."""
    names = vlm.layout.parameter_names(vlm.model, parts)
    parameters = dict(vlm.model.named_parameters())
    with torch.no_grad():
        for name in names:
            parameters[name] += by
    return names


def save(folder, vlm, parts=("projector",), by=0.05):
    canary = take_canary(vlm)
    return save_weights(folder, vlm, change(vlm, parts, by), FIELDS, canary)


@pytest.fixture
def run(tiny_vlm, tmp_path):
    """A finished run that changed the projector."""
    save(tmp_path / "run", tiny_vlm)
    return tmp_path / "run"


@pytest.fixture
def base(tiny_folder):
    return load(tiny_folder, device="cpu")


def weights_of(vlm):
    return {name: value.clone() for name, value in vlm.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def rewrite(run, **fields):
    manifest = json.loads((run / "manifest.json").read_text()) | fields
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_weights_come_back_as_they_were_saved(run, tiny_vlm, base):
    manifest = apply_weights(base, run)
    assert same(weights_of(base), weights_of(tiny_vlm))
    assert manifest["method"] == "vkd"
    assert manifest["request"] == {"scope": "visual"}


def test_only_changed_tensors_are_stored_and_listed(run):
    manifest = load_manifest(run)
    stored = load_file(run / "weights.safetensors")
    assert set(stored) == set(manifest["tensors"])
    assert all(name.startswith("model.multi_modal_projector.") for name in stored)
    assert manifest["tensors"]["model.multi_modal_projector.linear_1.weight"] == {
        "shape": [32, 32],
        "dtype": "float32",
    }


def test_a_run_is_for_its_owner_only_and_leaves_no_draft(run):
    assert stat.S_IMODE(os.stat(run).st_mode) == 0o700
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert {path.name for path in run.iterdir()} == {
        "manifest.json",
        "weights.safetensors",
        "canary.safetensors",
    }


def test_a_run_joins_the_checkpoints_in_its_folder(tiny_vlm, tmp_path):
    (tmp_path / "run").mkdir(mode=0o755)
    (tmp_path / "run" / "checkpoint.json").write_text("{}")
    save(tmp_path / "run", tiny_vlm)
    assert (tmp_path / "run" / "checkpoint.json").exists()
    assert load_manifest(tmp_path / "run")["kind"] == "weights"
    assert stat.S_IMODE(os.stat(tmp_path / "run").st_mode) == 0o700


def test_a_finished_run_is_not_written_over(run, base):
    with pytest.raises(ArtifactError, match="holds a finished run; give another --out"):
        refuse_existing_run(run)
    with pytest.raises(ArtifactError, match="holds a finished run"):
        save(run, base)


def test_a_full_disk_is_said_and_leaves_nothing(tiny_vlm, tmp_path, monkeypatch):
    def full(tensors, path, **more):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("unsee.artifacts.files.save_file", full)
    (tmp_path / "run").mkdir()
    with pytest.raises(
        ArtifactError, match=r"cannot be written \(I/O .* No space left .*\); free some space"
    ):
        save(tmp_path / "run", tiny_vlm)
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_a_draft_that_a_kill_left_is_written_anew(tiny_vlm, tmp_path):
    draft = tmp_path / "run" / ".partial"
    draft.mkdir(parents=True)
    (draft / "weights.safetensors").write_text("half")
    (draft / "left.txt").write_text("over")
    save(tmp_path / "run", tiny_vlm)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "manifest.json",
        "weights.safetensors",
        "canary.safetensors",
    }


@pytest.mark.parametrize("fails", ["write_tensors", "atomic_write_json", "file_record"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_write_that_fails_midway_leaves_nothing(tiny_vlm, tmp_path, monkeypatch, fails, exists):
    if exists:
        (tmp_path / "run").mkdir()
    calls = []
    real = getattr(weights_module, fails)

    def fail_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2 or fails == "atomic_write_json":
            raise OSError("disk full")
        return real(*arguments)

    monkeypatch.setattr(weights_module, fails, fail_second)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "run", tiny_vlm)
    assert [path.name for path in tmp_path.rglob("*")] == (["run"] if exists else [])


def test_a_change_without_effect_is_not_saved(tiny_vlm, tmp_path):
    with pytest.raises(ArtifactError, match="has no effect that could be checked"):
        save(tmp_path / "run", tiny_vlm, by=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_the_language_model_alone_is_seen_by_the_text_probes(tiny_vlm, base, tmp_path):
    manifest = save(tmp_path / "run", tiny_vlm, parts=("language", "head"))
    assert manifest["canary"]["distance_to_base"]["image"] == 0
    assert manifest["canary"]["distance_to_base"]["text"] > 1e-3
    apply_weights(base, tmp_path / "run")
    assert same(weights_of(base), weights_of(tiny_vlm))


def test_a_name_that_the_model_lacks_is_not_saved(tiny_vlm, tmp_path):
    with pytest.raises(ArtifactError, match=r"got projector\.weight, which the model does not"):
        save_weights(
            tmp_path / "run", tiny_vlm, ["projector.weight"], FIELDS, take_canary(tiny_vlm)
        )


def test_fields_written_here_cannot_be_given(tiny_vlm, tmp_path):
    canary = take_canary(tiny_vlm)
    names = change(tiny_vlm)
    with pytest.raises(ValueError, match="created"):
        save_weights(tmp_path / "run", tiny_vlm, names, {"created": "today"}, canary)


def test_an_artifact_of_another_base_is_refused(run, tmp_path):
    other = load(tiny_llava(tmp_path / "other", seed=1), device="cpu")
    before = weights_of(other)
    with pytest.raises(ArtifactError, match=f"made for base .*, got {other.fingerprint} .*; load"):
        apply_weights(other, run)
    assert same(before, weights_of(other))


def test_an_artifact_whose_effect_is_disabled_is_refused(run, base, monkeypatch):
    monkeypatch.setattr(weights_module, "_overwrite", lambda own, values: None)
    with pytest.raises(ArtifactError, match="loaded, but does not act as when it was saved"):
        apply_weights(base, run)


def test_an_artifact_emptied_to_the_base_weights_is_refused(run, base):
    """Even with matching sums, base values in place of changed ones are found out."""
    stored = load_file(run / "weights.safetensors")
    own = base.model.state_dict()
    save_file({name: own[name] for name in stored}, run / "weights.safetensors")
    relist(run, "weights.safetensors")
    before = weights_of(base)
    with pytest.raises(ArtifactError, match="does not act as when it was saved"):
        apply_weights(base, run)
    assert same(before, weights_of(base))


def test_a_canary_that_expects_the_base_is_refused(run, base):
    """Nor can the stored answers be those of the base."""
    stored = load_file(run / "canary.safetensors")
    for name in ("image", "text"):
        stored[f"after.{name}"] = stored[f"base.{name}"].clone()
    save_file(stored, run / "canary.safetensors")
    relist(run, "canary.safetensors")
    with pytest.raises(ArtifactError, match="has no effect that could be checked"):
        apply_weights(base, run)


def relist(run, name):
    """Make the manifest agree with a file that was exchanged."""
    files = json.loads((run / "manifest.json").read_text())["files"]
    files[name] = {"bytes": (run / name).stat().st_size, "sha256": _sha256(run / name)}
    rewrite(run, files=files)


def test_a_refused_artifact_leaves_the_model_as_it_was(run, base):
    stored = load_file(run / "weights.safetensors")
    save_file({name: value + 1 for name, value in stored.items()}, run / "weights.safetensors")
    relist(run, "weights.safetensors")
    before = weights_of(base)
    with pytest.raises(ArtifactError, match="does not act as when it was saved"):
        apply_weights(base, run)
    assert same(before, weights_of(base))


def test_a_model_that_was_already_changed_is_refused(run, base):
    change(base)
    with pytest.raises(ArtifactError, match="the model is not the base as it was opened"):
        apply_weights(base, run)


def test_half_precision_loads_an_artifact_trained_in_float32(tmp_path, tiny_folder, run):
    """The base is stored in float32 here, so its fingerprint is taken over."""
    half = load(tiny_folder, device="cpu", dtype="float16")
    half.fingerprint = load_manifest(run)["base_fingerprint"]
    apply_weights(half, run)
    assert half.dtype == torch.float16


@pytest.mark.parametrize("name", ["weights.safetensors", "canary.safetensors"])
def test_missing_files_are_named(run, base, name):
    (run / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing; copy the run again"):
        apply_weights(base, run)


@pytest.mark.parametrize("name", ["weights.safetensors", "canary.safetensors"])
def test_truncated_files_are_refused(run, base, name):
    (run / name).write_bytes((run / name).read_bytes()[:-8])
    with pytest.raises(ArtifactError, match=rf"{name} has \d+ bytes, expected \d+"):
        apply_weights(base, run)


@pytest.mark.parametrize("name", ["weights.safetensors", "canary.safetensors"])
def test_damaged_files_are_refused(run, base, name):
    content = bytearray((run / name).read_bytes())
    content[-1] ^= 0xFF
    (run / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} is damaged; copy the run again"):
        apply_weights(base, run)


def test_a_folder_without_a_manifest_is_no_run(tmp_path, base):
    with pytest.raises(ArtifactError, match=r"not a finished run \(no manifest\.json\)"):
        apply_weights(base, tmp_path)


def test_a_newer_format_asks_for_an_upgrade(run, base):
    rewrite(run, format=2)
    with pytest.raises(ArtifactError, match=r"format 2 is newer .* \(up to 1\); upgrade unsee"):
        apply_weights(base, run)


def test_a_damaged_manifest_is_refused(run, base):
    (run / "manifest.json").write_text('{"format": 1')
    with pytest.raises(ArtifactError, match="damaged, not JSON"):
        apply_weights(base, run)
    (run / "manifest.json").write_text("[]")
    with pytest.raises(ArtifactError, match="expected a manifest with a format number"):
        apply_weights(base, run)
    (run / "manifest.json").write_text('{"format": 1, "kind": "weights"}')
    with pytest.raises(ArtifactError, match="lacks base_fingerprint, base_source, canary, files"):
        apply_weights(base, run)


def test_another_kind_of_artifact_is_refused(run, base):
    rewrite(run, kind="eraser")
    with pytest.raises(ArtifactError, match="expected weights, got an eraser"):
        apply_weights(base, run)


def test_a_manifest_that_lists_other_tensors_is_refused(run, base):
    rewrite(run, tensors={})
    with pytest.raises(ArtifactError, match=r"weights\.safetensors and manifest\.json disagree"):
        apply_weights(base, run)
