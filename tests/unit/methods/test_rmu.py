import pytest
import torch

from unsee.errors import ConfigError, LayoutError
from unsee.methods.rmu import RMU, control_vector


def states(vlm, rows, layer):
    """States after a layer right before each answer token, (token, width)."""
    with torch.no_grad():
        found = vlm.model(**rows.batch.inputs(), output_hidden_states=True, use_cache=False)
    # State 0 is the embedding.
    hidden = found.hidden_states[layer + 1]
    return hidden[:, :-1][rows.batch.labels[:, 1:] != -100]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(
    ("layer", "coefficient", "retain_weight"), [(1, 5.0, 1200.0), (0, 2.0, 3.0)]
)
def test_terms_are_those_of_the_formula(layer, coefficient, retain_weight, adaptive, midway):
    settings = {"layer": layer, "coefficient": coefficient, "retain_weight": retain_weight}
    parts = ["vision", "projector", f"language.layers[{layer}]"]
    with midway(RMU, adaptive=adaptive, parts=parts, **settings) as at:
        terms = at.terms()
        sides = at.batch.forget, at.batch.keep
        forget, keep = (states(at.vlm, rows, layer) for rows in sides)
        forget_before, keep_before = (states(at.start, rows, layer) for rows in sides)
    u = control_vector(forget.shape[1], seed=0)
    length = forget_before.norm(dim=1, keepdim=True) if adaptive else 1.0
    misdirected = (forget - coefficient * length * u).square().mean().item()
    held = (keep - keep_before).square().mean().item()
    assert held > 1e-4
    assert set(terms) == {"misdirection", "states"}
    assert terms["misdirection"] == pytest.approx(misdirected, rel=1e-4)
    assert terms["states"] == pytest.approx(retain_weight * held, rel=1e-4)


def test_without_a_retain_weight_only_the_forget_side_is_run(midway):
    with midway(RMU, retain_weight=0.0) as at:
        assert set(at.terms()) == {"misdirection"}
        assert "batch" not in vars(at.batch.keep)


def test_nothing_behind_the_layer_is_run(midway):
    def behind(*args):
        raise AssertionError("a later layer was run")

    with midway(RMU, layer=0, parts=["language.layers[0]"]) as at:
        later = at.vlm.layout.language_layer_paths(at.vlm.model)[1]
        hook = at.vlm.model.get_submodule(later).register_forward_pre_hook(behind)
        assert set(at.terms()) == {"misdirection", "states"}
        hook.remove()


def test_the_control_vector_is_a_direction_of_the_seed():
    one, same, other = (control_vector(64, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-2)
    for vector in (one, other):
        assert vector.norm().item() == pytest.approx(1)
        assert (vector >= 0).all()


def test_a_layer_that_is_not_there_is_refused(tiny_vlm):
    method = RMU.model_validate({"layer": 3, "parts": ["language.layers[:2]"]})
    message = r"^method\.layer: expected at most 2 for .*, got 3$"
    for names in (method.trainable, method.lora_targets):
        with pytest.raises(ConfigError, match=message):
            names(tiny_vlm)


@pytest.mark.parametrize("part", ["language.layers[1:]", "language", "head"])
def test_parts_that_the_loss_does_not_reach_are_refused(part, tiny_vlm):
    method = RMU.model_validate({"layer": 1, "parts": ["projector", part]})
    message = (
        r"^method\.parts: expected some of vision, projector, language\.layers\[:2\], on which the "
        r"states of method\.layer=1 depend, got projector, "
    )
    for names in (method.trainable, method.lora_targets):
        with pytest.raises(ConfigError, match=message):
            names(tiny_vlm)


def test_an_unknown_part_is_named(tiny_vlm):
    with pytest.raises(LayoutError, match="'tower'"):
        RMU.model_validate({"parts": ["tower"]}).trainable(tiny_vlm)
