"""Runs as checkpoints and adapters that stock transformers and peft open."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForImageTextToText, AutoProcessor

from unsee.artifacts import apply_stack, apply_weights, load_manifest, locked, save_weights
from unsee.artifacts.canary import take_canary
from unsee.data.collate import encode
from unsee.errors import ArtifactError, ConfigError
from unsee.export import _save_merged, export
from unsee.forget import forget
from unsee.methods.grad_diff import GradDiff
from unsee.models.load import load
from unsee.models.tiny import tiny_llava

FIELDS = {"method": {"name": "vkd", "settings": {}}, "seeds": [0], "request": {}}
FEW = {
    "steps": 2,
    "lr": 3e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
}


def made(folder, vlm, part, by):
    """A run that moves one part of the model."""
    canary = take_canary(vlm)
    names = vlm.layout.parameter_names(vlm.model, [part])
    with torch.no_grad():
        for name in names:
            vlm.model.get_parameter(name).add_(by)
    save_weights(folder, vlm, names, FIELDS, canary)
    return folder


@pytest.fixture(scope="module")
def runs(tiny_folder, small_split, tmp_path_factory):
    """`one`, `two` and `lora_on_one` on top of it, and `lora`; not to be changed."""
    home = tmp_path_factory.mktemp("runs")
    made(home / "one", load(tiny_folder, device="cpu"), "projector", 0.05)
    vlm = load(tiny_folder, device="cpu")
    apply_weights(vlm, home / "one")
    method = GradDiff.model_validate({**FEW, "lora_rank": 2})
    forget(vlm, small_split, method=method, out=home / "lora_on_one")
    made(home / "two", vlm, "projector", 0.03)
    forget(load(tiny_folder, device="cpu"), small_split, method=method, out=home / "lora")
    return home


@pytest.fixture
def base(tiny_folder):
    return load(tiny_folder, dtype="float32", device="cpu")


@pytest.fixture
def inputs(base, small_split):
    return encode(base, small_split.forget[:3], answers=True, side="right").inputs()


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs, use_cache=False).logits


def refused(message, tmp_path, *args, **more):
    """One line, and nothing is there that was not before."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ArtifactError, ConfigError), match=message) as caught:
        export(*args, **more)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_stock_transformers_opens_a_merged_run_with_identical_logits(
    runs, base, inputs, small_split, tmp_path
):
    before = logits(base.model, inputs)
    folder = export(runs / "one", merged=tmp_path / "merged")
    assert folder == tmp_path / "merged"
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    stock = AutoModelForImageTextToText.from_pretrained(folder)
    apply_weights(base, runs / "one")
    assert torch.equal(logits(stock, inputs), logits(base.model, inputs))
    assert not torch.equal(logits(stock, inputs), before)
    processor = AutoProcessor.from_pretrained(folder)
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    prompts = [p.apply_chat_template(asked) for p in (processor, base.processor)]
    assert prompts[0] == prompts[1]
    photo = small_split.forget[0].image.open()
    found, own = (
        p(images=photo, text=prompts[0], return_tensors="pt") for p in (processor, base.processor)
    )
    assert all(torch.equal(found[name], own[name]) for name in own)
    assert stock.generation_config.eos_token_id == base.model.generation_config.eos_token_id


def test_a_merged_folder_is_as_readable_as_any_other(runs, tmp_path):
    (tmp_path / "plain").mkdir()
    folder = export(runs / "one", merged=tmp_path / "merged")
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


# transformers 5.23 leaves additional chat templates open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_base_s_own_files_are_carried_over_but_no_weights_and_no_code(
    runs, tiny_folder, tmp_path
):
    source = tmp_path / "base"
    shutil.copytree(tiny_folder, source)
    generation = {"eos_token_id": 2, "temperature": 0.1, "do_sample": False, "top_p": 0.3}
    texts = {
        "video_preprocessor_config.json": "{}",
        "additional_chat_templates/tools.jinja": "{{ x }}",
        "LICENSE": "Anything.",
        # Hugging Face opens these settings, and refuses to save them.
        "generation_config.json": json.dumps(generation),
    }
    left = ("model.safetensors.index.json", "modeling_x.py", "pytorch_model.bin", "README.md")
    for name, text in texts.items() | dict.fromkeys(left, "{}").items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    folder = export(runs / "one", merged=tmp_path / "merged", base=source)
    for name, text in texts.items():
        assert (folder / name).read_text() == text
    assert not any((folder / name).exists() for name in left)


def test_without_generation_settings_in_the_base_there_are_none(runs, tiny_folder, tmp_path):
    source = tmp_path / "base"
    shutil.copytree(tiny_folder, source)
    (source / "generation_config.json").unlink()
    folder = export(runs / "one", merged=tmp_path / "merged", base=source)
    stock = AutoModelForImageTextToText.from_pretrained(folder)
    own = AutoModelForImageTextToText.from_pretrained(source)
    assert stock.generation_config.to_dict() == own.generation_config.to_dict()


def test_files_of_a_model_from_the_hub_are_those_of_its_snapshot(
    base, tiny_folder, tmp_path, monkeypatch
):
    home = tmp_path / "hub" / "models--nobody--tiny"
    shutil.copytree(tiny_folder, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    base.source = "nobody/tiny"
    (tmp_path / "merged").mkdir()
    _save_merged(base, tmp_path / "merged")
    assert load(tmp_path / "merged", device="cpu").fingerprint == base.fingerprint
    base.source = "nobody/else"
    with pytest.raises(ConfigError, match="nobody/else: cannot fetch the model's files: "):
        _save_merged(base, tmp_path / "merged")


def test_a_stack_is_exported_as_a_whole(runs, base, inputs, tmp_path):
    folder = export(runs / "two", artifacts=[runs / "one"], merged=tmp_path / "merged")
    apply_stack(base, [runs / "one", runs / "two"])
    stock = AutoModelForImageTextToText.from_pretrained(folder)
    assert torch.equal(logits(stock, inputs), logits(base.model, inputs))
    refused("give --artifact .*one before it", tmp_path, runs / "two", merged=tmp_path / "x")


def test_one_of_the_two_forms_is_chosen(runs, tmp_path):
    refused("expected --merged DIR or --peft DIR, got neither", tmp_path, runs / "one")
    both = {"merged": tmp_path / "a", "peft": tmp_path / "b"}
    refused("expected --merged DIR or --peft DIR, got both", tmp_path, runs / "one", **both)


@pytest.mark.parametrize("flag", ["merged", "peft"])
def test_a_folder_with_something_in_it_is_left_alone(runs, tmp_path, flag):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    message = f"full: expected a new or an empty folder, got one with files; give another --{flag}"
    refused(message, tmp_path, runs / "lora", **{flag: tmp_path / "full"})
    note = tmp_path / "full" / "note.txt"
    refused("note.txt: expected a folder .*, got a file", tmp_path, runs / "lora", **{flag: note})
    (tmp_path / "empty").mkdir()
    assert any(export(runs / "lora", **{flag: tmp_path / "empty"}).iterdir())


@pytest.mark.parametrize("flag", ["merged", "peft"])
def test_a_write_that_fails_midway_leaves_nothing(runs, tmp_path, monkeypatch, flag):
    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["unsee.export"], "sync", fail)
    with pytest.raises(OSError, match="No space left"):
        export(runs / "lora", **{flag: tmp_path / "out"})
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_no_checkpoint_and_is_cleared_away(runs, tmp_path):
    left = tmp_path / ".out.partial" / "out"
    left.mkdir(parents=True)
    (left.parent / ".lock").write_text('{"pid": 1, "since": "yesterday"}')
    (left / "junk.txt").write_text("half")
    with pytest.raises(ConfigError):
        load(tmp_path / "out")
    folder = export(runs / "one", merged=tmp_path / "out")
    assert not (folder / "junk.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_left_beside_a_whole_export_is_cleared_away(runs, tmp_path):
    export(runs / "one", merged=tmp_path / "out")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / ".lock").write_text('{"pid": 1, "since": "yesterday"}')
    with pytest.raises(ArtifactError, match="expected a new or an empty folder"):
        export(runs / "one", merged=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_until_the_weights_are_there_a_draft_is_opened_by_nobody(runs, tmp_path, monkeypatch):
    drafts = []

    def killed(tensors, path, **more):
        drafts.append({file.name: file.read_bytes() for file in Path(path).parent.iterdir()})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("transformers.modeling_utils.safe_save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            export(runs / "one", merged=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    folder = export(runs / "one", merged=tmp_path / "out")
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert whole.keys() - drafts[0].keys() == {"model.safetensors"}
    assert drafts[0].items() <= whole.items()


def test_two_processes_do_not_write_one_folder(runs, tmp_path):
    with locked(tmp_path / ".out.partial"):
        message = r"/out: process \d+ has worked in it since .*; wait for it, or give .* --merged$"
        refused(message, tmp_path, runs / "one", merged=tmp_path / "out")


def test_a_folder_that_cannot_be_written_to_is_said_before_the_base_is_opened(
    runs, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys.modules["unsee.export"], "load", None)
    refused(
        re.escape("file/out: cannot be written to (Not a directory); give another --merged"),
        tmp_path,
        runs / "one",
        merged=tmp_path / "file" / "out",
    )


def test_the_base_is_asked_for_where_it_is_gone_and_checked(runs, tiny_folder, base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "one", run)
    manifest = load_manifest(run) | {"base_source": str(tmp_path / "gone")}
    (run / "manifest.json").write_text(json.dumps(manifest))
    out = {"merged": tmp_path / "merged"}
    refused(
        "gone: no such model folder.*; if the base is elsewhere, .* --base", tmp_path, run, **out
    )
    other = tiny_llava(tmp_path / "other", seed=1)
    refused("made for base .*; load the model it was made for", tmp_path, run, base=other, **out)
    assert load(export(run, base=tiny_folder, **out), device="cpu").layout == base.layout


def test_a_damaged_run_is_not_exported(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "lora", run)
    for name, flag in (("weights.safetensors", "merged"), ("adapter.safetensors", "peft")):
        content = bytearray((run / name).read_bytes())
        content[-1] ^= 0xFF
        (run / name).write_bytes(content)
        message = f"{name} is damaged; copy the run again"
        refused(message, tmp_path, run, **{flag: tmp_path / "out"})
        shutil.copyfile(runs / "lora" / name, run / name)


# peft 0.21 asks transformers 5.23 for it by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_stock_peft_opens_an_adapter_on_the_base(runs, base, tiny_folder, inputs, tmp_path):
    folder = export(runs / "lora", peft=tmp_path / "adapter")
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    stock = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    untouched = logits(stock, inputs)
    adapted = PeftModel.from_pretrained(stock, str(folder))
    found = logits(adapted, inputs)
    apply_weights(base, runs / "lora")
    torch.testing.assert_close(found, logits(base.model, inputs), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, untouched, rtol=1e-2, atol=1e-2)

    targets = set(GradDiff.model_validate({"lora_rank": 2}).lora_targets(base))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == targets
    assert config["base_model_name_or_path"] == str(tiny_folder)
    assert (config["r"], config["lora_alpha"]) == (2, 2)
    paths = {
        name.removeprefix("base_model.model.")
        for name, module in adapted.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert paths == targets


def test_a_run_without_adapters_has_none_to_export(runs, tmp_path):
    refused(
        "one: expected a run that trained LoRA adapters, got one that did not; export it with "
        "--merged, or forget with --method grad_diff --set method.lora_rank=8",
        tmp_path,
        runs / "one",
        peft=tmp_path / "adapter",
    )


def test_an_adapter_on_top_of_another_run_is_not_for_the_base(runs, tmp_path):
    message = r"made on top of .*one \(\w+\), and an adapter goes on the base alone; export it"
    run = runs / "lora_on_one"
    refused(message, tmp_path, run, artifacts=[runs / "one"], peft=tmp_path / "adapter")
    folder = export(run, artifacts=[runs / "one"], merged=tmp_path / "merged")
    assert (folder / "config.json").exists()
