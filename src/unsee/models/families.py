"""The model families we know: one row of data each, checked against Hugging Face's own getters."""

from torch import nn

from unsee.errors import LayoutError
from unsee.models.layout import Layout

FAMILIES: dict[str, Layout] = {
    "llava": Layout(
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
    ),
}


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
            f"({', '.join(sorted(FAMILIES))}), got model type {model_type!r}"
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
