import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from unsee.errors import ConfigError, LayoutError
from unsee.models.load import load


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def halve(folder):
    """Store the weights in half precision, as most checkpoints are."""
    weights = load_file(folder / "model.safetensors")
    halves = {name: value.half() for name, value in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float16"
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_opens_ready_to_answer(tiny_folder):
    vlm = load(tiny_folder)
    assert not vlm.model.training
    assert vlm.source == str(tiny_folder)
    assert vlm.layout.family == "llava"
    assert len(vlm.fingerprint) == 16


def test_half_precision_is_widened_on_a_cpu_and_the_fingerprint_stays(folder):
    halve(folder)
    wide = load(folder, device="cpu")
    narrow = load(folder, device="cpu", dtype="float16")
    assert wide.dtype == torch.float32
    assert narrow.dtype == torch.float16
    assert wide.device == torch.device("cpu")
    assert wide.fingerprint == narrow.fingerprint


def test_one_changed_weight_changes_the_fingerprint(folder, tiny_folder):
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).fingerprint != load(tiny_folder).fingerprint


@pytest.mark.parametrize("kind", ["CLIPImageProcessorFast", "CLIPImageProcessor"])
def test_pictures_are_prepared_with_pillow_whatever_the_folder_names(folder, kind):
    config = json.loads((folder / "processor_config.json").read_text())
    preprocessor = config.pop("image_processor") | {"image_processor_type": kind}
    (folder / "processor_config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    assert type(load(folder).processor.image_processor).__name__ == "CLIPImageProcessorPil"


def test_a_missing_folder_is_named():
    with pytest.raises(ConfigError, match=r"^\./no/such: no such model folder; give a folder with"):
        load("./no/such")


def test_a_name_that_is_not_on_the_hub_is_named():
    with pytest.raises(
        ConfigError, match=r"^nobody/nothing: cannot open the model's configuration"
    ):
        load("nobody/nothing")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot open the model's configuration"):
        load(tmp_path)


def test_a_text_only_model_is_refused_in_one_line(tmp_path):
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(LayoutError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: expected a vision-language model of a known family (")
    assert "got model type 'llama'; if it is one" in message
    assert "\n" not in message


def test_missing_tensors_are_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    removed = sorted(weights)[0]
    del weights[removed]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="weights are incomplete, 1 tensors are missing"):
        load(folder)


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="cannot open the model's weights"):
        load(folder)


def test_pickled_weights_are_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot open the model's weights"):
        load(folder)


def test_a_missing_tokenizer_is_refused(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ConfigError, match="cannot open the model's processor"):
        load(folder)


def test_unknown_dtype_and_device_are_refused(tiny_folder):
    with pytest.raises(ConfigError, match="dtype 'int3': expected auto, float32, float16"):
        load(tiny_folder, dtype="int3")
    with pytest.raises(ConfigError, match="device 'abacus': expected auto, cpu, cuda"):
        load(tiny_folder, device="abacus")


@pytest.mark.parametrize("where", ["cpu", "auto", {"": "cpu"}], ids=str)
def test_a_device_map_takes_the_place_of_a_device(where, tiny_folder):
    plain = load(tiny_folder, device="cpu")
    spread = load(tiny_folder, device_map=where)
    assert spread.fingerprint == plain.fingerprint
    assert spread.device == plain.device
    assert not spread.model.training
    text = plain.processor.tokenizer("Who is this?", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(spread.model(**text).logits, plain.model(**text).logits)


def test_weights_left_on_disk_and_two_places_are_refused(tiny_folder, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="expected device or device_map, got both"):
        load(tiny_folder, device="cpu", device_map="auto")
    monkeypatch.chdir(tmp_path)
    on_disk = {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu", "lm_head": "cpu"}
    with pytest.raises(ConfigError, match="device_map leaves weights on disk"):
        load(tiny_folder, device_map=on_disk | {"model.language_model": "disk"})
