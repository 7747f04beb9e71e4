from dataclasses import replace

import pytest

from unsee.errors import LayoutError
from unsee.models.families import FAMILIES, layout_of


def test_every_part_has_its_parameters_and_together_they_are_all(tiny_vlm):
    layout, model = tiny_vlm.layout, tiny_vlm.model
    parts = [
        set(layout.parameter_names(model, [part]))
        for part in ("vision", "projector", "language", "head")
    ]
    everything = [name for name, _ in model.named_parameters()]
    assert sum(map(len, parts)) == len(everything)
    assert set.union(*parts) == set(everything)


def test_names_come_once_and_in_the_order_of_the_model(tiny_vlm):
    names = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector", "vision", "projector"])
    everything = [name for name, _ in tiny_vlm.model.named_parameters()]
    assert names == [name for name in everything if name in set(names)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("part", "blocks"),
    [
        ("vision.blocks[-1:]", {"1"}),
        ("vision.blocks[-2:]", {"0", "1"}),
        ("vision.blocks[0]", {"0"}),
        ("vision.blocks[-1]", {"1"}),
        ("vision.blocks[:]", {"0", "1"}),
    ],
)
def test_some_vision_blocks_are_chosen(tiny_vlm, part, blocks):
    names = tiny_vlm.layout.parameter_names(tiny_vlm.model, [part])
    prefix = "model.vision_tower.encoder.layers."
    assert all(name.startswith(prefix) for name in names)
    assert {name.removeprefix(prefix).split(".")[0] for name in names} == blocks


def test_language_layers_never_reach_into_the_vision_tower(tiny_vlm):
    names = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["language.layers[0:1]"])
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in names
    assert all(name.startswith("model.language_model.layers.0.") for name in names)


@pytest.mark.parametrize(
    "part",
    ["eyes", "vision.blocks", "vision.blocks[]", "vision.blocks[5:]", "vision.blocks[7]", "visio"],
)
def test_a_part_that_matches_nothing_is_an_error(tiny_vlm, part):
    with pytest.raises(LayoutError, match="matches no parameter of LlavaForConditionalGeneration"):
        tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector", part])


def test_all_missing_parts_are_named_at_once(tiny_vlm):
    wrong = replace(tiny_vlm.layout, projector="model.connector", head="model.head")
    with pytest.raises(LayoutError) as caught:
        wrong.check(tiny_vlm.model)
    assert "no projector at 'model.connector', no head at 'model.head'" in str(caught.value)


def test_an_unknown_family_is_answered_with_the_known_ones():
    with pytest.raises(LayoutError) as caught:
        layout_of("mamba", where="my/model")
    assert str(caught.value) == (
        "my/model: expected a vision-language model of a known family "
        f"({', '.join(sorted(FAMILIES))}), got model type 'mamba'; if it is one, "
        "give it a row in unsee/models/families.py"
    )


def test_families_are_filed_under_their_own_name():
    assert all(layout.family == name for name, layout in FAMILIES.items())
