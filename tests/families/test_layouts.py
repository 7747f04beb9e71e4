"""Every row of models/families.py against Hugging Face's own class and getters."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from unsee.errors import LayoutError
from unsee.models.families import FAMILIES, checked_layout
from unsee.models.layout import PARTS


@pytest.fixture
def model(family):
    """The family's model at its default size, without memory for its weights."""
    config = AutoConfig.for_model(family)
    with no_init_weights(), torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    return model


def test_every_family_of_the_issue_has_a_row():
    assert set(FAMILIES) == set(
        "llava llava_next llava_onevision qwen2_vl qwen2_5_vl qwen3_vl internvl idefics2 idefics3 "
        "smolvlm paligemma gemma3 mllama".split()
    )


def test_paths_lead_where_the_getters_do(model):
    layout = checked_layout(model, model.config.model_type, where="meta")
    assert model.get_submodule(layout.vision_tower) is model.get_encoder("image")
    assert model.get_submodule(layout.language_model) is model.get_decoder()
    assert model.get_submodule(layout.head) is model.get_output_embeddings()


def test_blocks_and_layers_are_as_many_as_configured(model):
    layout = FAMILIES[model.config.model_type]
    vision, text = model.config.vision_config, model.config.text_config
    # Mllama's tower has a second list of blocks.
    blocks = vision.num_hidden_layers + getattr(vision, "num_global_layers", 0)
    assert len(layout.vision_block_paths(model)) == blocks
    assert 0 < layout.used_vision_blocks(model) <= blocks
    assert len(layout.language_layer_paths(model)) == text.num_hidden_layers
    for path in (layout.vision_blocks, layout.language_layers):
        assert isinstance(model.get_submodule(path), nn.ModuleList)


def test_parts_share_no_parameter_and_leave_none_out(model):
    layout = FAMILIES[model.config.model_type]
    named = [name for part in PARTS for name in layout.parameter_names(model, [part])]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())


def test_only_a_tied_head_has_no_parameter_of_its_own(model):
    layout = FAMILIES[model.config.model_type]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert layout.has_tied_head(model) == tied
    assert bool(layout.parameter_names(model, ["head"])) != tied


def test_the_projector_is_no_part_of_the_tower(model):
    layout = FAMILIES[model.config.model_type]
    projector = set(layout.parameter_names(model, ["projector"]))
    assert projector.isdisjoint(layout.parameter_names(model, ["vision"]))
    assert projector.isdisjoint(layout.parameter_names(model, ["vision.blocks[:]"]))
    for path in layout.projector_paths(model):
        below = {name for name in projector if name.startswith(f"{path}.")}
        assert below
    assert not any("merger" in name for name in layout.parameter_names(model, ["vision"]))


def test_neurons_are_written_by_one_linear_layer_and_read_by_another(model):
    layout = FAMILIES[model.config.model_type]
    for block in layout.vision_block_paths(model):
        written = model.get_submodule(f"{block}.{layout.vision_mlp_in}")
        read = model.get_submodule(f"{block}.{layout.vision_mlp_out}")
        assert written.out_features == read.in_features


def test_neurons_of_language_layers_are_read_by_a_linear_layer(model):
    layout = FAMILIES[model.config.model_type]
    for layer in layout.language_layer_paths(model):
        read = model.get_submodule(f"{layer}.{layout.language_mlp_out}")
        assert isinstance(read, nn.Linear)
        assert read.in_features == model.config.text_config.intermediate_size


def test_the_head_reads_behind_a_norm_of_the_language_models_width(model):
    layout = FAMILIES[model.config.model_type]
    norm = model.get_submodule(layout.last_norm_path(model))
    (weight,) = norm.parameters()
    assert weight.shape == (model.get_submodule(layout.head).in_features,)


def test_the_configuration_has_the_image_token(model):
    layout = FAMILIES[model.config.model_type]
    assert isinstance(getattr(model.config, layout.image_token_id), int)


@pytest.mark.parametrize("family", ["mllama", "qwen3_vl"], indirect=True)
def test_parts_beside_the_main_ones_are_checked_too(model):
    layout = FAMILIES[model.config.model_type]
    wrong = replace(layout, later_vision_blocks="model.nowhere", more_projectors=("model.none",))
    with pytest.raises(LayoutError, match=r"projector at 'model.none'.*blocks at 'model.nowhere'"):
        wrong.check(model)
