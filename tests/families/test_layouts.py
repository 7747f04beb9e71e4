"""Every row of models/families.py against Hugging Face's own class and getters."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from unsee.models.families import FAMILIES, checked_layout


@pytest.fixture(params=sorted(FAMILIES))
def model(request):
    """The family's model at its default size, without memory for its weights."""
    config = AutoConfig.for_model(request.param)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def test_paths_lead_where_the_getters_do(model):
    layout = checked_layout(model, model.config.model_type, where="meta")
    assert model.get_submodule(layout.vision_tower) is model.get_encoder("image")
    assert model.get_submodule(layout.language_model) is model.get_decoder()
    assert model.get_submodule(layout.head) is model.get_output_embeddings()


def test_blocks_and_layers_are_as_many_as_configured(model):
    layout = FAMILIES[model.config.model_type]
    vision, text = model.config.vision_config, model.config.text_config
    assert len(layout.vision_block_paths(model)) == vision.num_hidden_layers
    assert len(layout.language_layer_paths(model)) == text.num_hidden_layers
    for path in (layout.vision_blocks, layout.language_layers):
        assert isinstance(model.get_submodule(path), nn.ModuleList)


def test_parts_share_no_parameter_and_leave_none_out(model):
    layout = FAMILIES[model.config.model_type]
    parts = ["vision", "projector", "language", "head"]
    named = [name for part in parts for name in layout.parameter_names(model, [part])]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())


def test_the_configuration_has_the_image_token(model):
    layout = FAMILIES[model.config.model_type]
    assert isinstance(getattr(model.config, layout.image_token_id), int)
