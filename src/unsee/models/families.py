"""The model families we know: one row of data each, checked against Hugging Face's own getters."""

from dataclasses import replace

from torch import nn

from unsee.errors import LayoutError
from unsee.models.layout import Layout

_LLAVA = Layout(
    family="llava",
    vision_tower="model.vision_tower",
    vision_blocks="model.vision_tower.encoder.layers",
    projector="model.multi_modal_projector",
    language_model="model.language_model",
    language_layers="model.language_model.layers",
    head="lm_head",
    vision_mlp_in="mlp.fc1",
    vision_mlp_out="mlp.fc2",
    feature_layer="vision_feature_layer",
)
_QWEN = Layout(
    family="qwen2_vl",
    vision_tower="model.visual",
    vision_blocks="model.visual.blocks",
    projector="model.visual.merger",
    language_model="model.language_model",
    language_layers="model.language_model.layers",
    head="lm_head",
    vision_mlp_in="mlp.fc1",
    vision_mlp_out="mlp.fc2",
    visual_inputs=("pixel_values", "image_grid_thw"),
    shares_photos=True,
)
_IDEFICS = Layout(
    family="idefics3",
    vision_tower="model.vision_model",
    vision_blocks="model.vision_model.encoder.layers",
    projector="model.connector",
    language_model="model.text_model",
    language_layers="model.text_model.layers",
    head="lm_head",
    vision_mlp_in="mlp.fc1",
    vision_mlp_out="mlp.fc2",
    visual_inputs=("pixel_values", "pixel_attention_mask"),
    nested_images=True,
    shares_photos=True,
)
_ROWS = (
    replace(_LLAVA, shares_photos=True),
    replace(
        _LLAVA,
        family="llava_next",
        shares_photos=True,
        more_projectors=("model.image_newline",),
        visual_inputs=("pixel_values", "image_sizes"),
    ),
    replace(
        _LLAVA,
        family="llava_onevision",
        shares_photos=True,
        more_projectors=("model.image_newline",),
        visual_inputs=("pixel_values", "image_sizes", "batch_num_images"),
    ),
    _QWEN,
    replace(
        _QWEN,
        family="qwen2_5_vl",
        vision_mlp_in="mlp.gate_proj",
        vision_mlp_out="mlp.down_proj",
    ),
    replace(
        _QWEN,
        family="qwen3_vl",
        vision_mlp_in="mlp.linear_fc1",
        vision_mlp_out="mlp.linear_fc2",
        # Features of inner blocks, added to those of the first language layers.
        more_projectors=("model.visual.deepstack_merger_list",),
    ),
    replace(
        _LLAVA,
        family="internvl",
        shares_photos=True,
        vision_blocks="model.vision_tower.encoder.layer",
    ),
    replace(_IDEFICS, family="idefics2"),
    _IDEFICS,
    replace(_IDEFICS, family="smolvlm"),
    replace(
        _LLAVA,
        family="paligemma",
        feature_layer=None,
        answer_token_type=1,
        language_features=False,
        # Its checkpoints have none; the processor adds the first token and the line's end.
        chat_template=(
            "{% for message in messages %}{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
            "{% endfor %}{% endfor %}"
        ),
        text_prompt="{bos}{prompt}\n",
        converses=False,
    ),
    replace(_LLAVA, family="gemma3", feature_layer=None, nested_images=True),
    replace(
        _LLAVA,
        family="mllama",
        vision_tower="model.vision_model",
        vision_blocks="model.vision_model.transformer.layers",
        later_vision_blocks="model.vision_model.global_transformer.layers",
        feature_layer=None,
        visual_inputs=("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"),
        nested_images=True,
        # Photos enter by cross-attention; beside them, a row without one sees an empty photo.
        language_features=False,
        mixes_rows=False,
    ),
)
FAMILIES: dict[str, Layout] = {row.family: row for row in _ROWS}


def layout_of(model_type: str, *, where: str) -> Layout:
    """The layout of a family.

    Args:
        model_type: As in the model's configuration.
        where: The model's name or folder, for the message.

    Raises:
        LayoutError: If the family is not known, as with every text-only model.
    """
    if model_type not in FAMILIES:
        raise LayoutError(
            f"{where}: expected a vision-language model of a known family "
            f"({', '.join(sorted(FAMILIES))}), got model type {model_type!r}; if it is one, give "
            "it a row in unsee/models/families.py"
        )
    return FAMILIES[model_type]


def checked_layout(model: nn.Module, model_type: str, *, where: str) -> Layout:
    """The layout of a family, after a look at the model that all its parts are there.

    Raises:
        LayoutError: If the family is not known or a part is missing.
    """
    layout = layout_of(model_type, where=where)
    layout.check(model)
    return layout
