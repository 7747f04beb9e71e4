import pytest
import torch

from unsee.errors import LayoutError
from unsee.models.lora import factors, lora


def linear_paths(vlm, part):
    names = vlm.layout.parameter_names(vlm.model, [part])
    modules = dict(vlm.model.named_modules())
    paths = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    return [path for path in paths if isinstance(modules[path], torch.nn.Linear)]


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def differing(before, after):
    assert list(before) == list(after)
    return [name for name in before if not torch.equal(before[name], after[name])]


def tree(vlm):
    return [(name, type(module)) for name, module in vlm.model.named_modules()]


@pytest.fixture
def inputs(tiny_vlm):
    return {"input_ids": torch.tensor([[5, 9, 13, 7]])}


def fill(adapters, seed=0):
    """Numbers as training would leave them; B starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapters.values():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))


def test_only_the_named_layers_get_adapters(tiny_vlm):
    targets = linear_paths(tiny_vlm, "vision.blocks[0]")
    with lora(tiny_vlm.model, targets, rank=3) as adapters:
        owners = {name.split(".lora_")[0] for name in adapters}
        assert owners == set(targets)
        assert len(adapters) == 2 * len(targets)
        assert all(p.requires_grad for p in adapters.values())
        moving = {n for n, p in tiny_vlm.model.named_parameters() if p.requires_grad}
        assert moving == set(adapters)
        for name, p in adapters.items():
            assert p.shape[0 if "lora_A" in name else 1] == 3


def test_fresh_adapters_change_nothing(tiny_vlm, inputs):
    expected = tiny_vlm.model(**inputs).logits
    before = weights(tiny_vlm)
    with lora(tiny_vlm.model, linear_paths(tiny_vlm, "language"), rank=2):
        assert torch.equal(tiny_vlm.model(**inputs).logits, expected)
    assert differing(before, weights(tiny_vlm)) == []


@pytest.mark.parametrize(("rank", "alpha"), [(2, None), (2, 6), (4, 1)])
def test_adapters_are_merged_by_the_formula(rank, alpha, tiny_vlm):
    target = linear_paths(tiny_vlm, "language.layers[1]")[0]
    before = weights(tiny_vlm)
    with lora(tiny_vlm.model, [target], rank=rank, alpha=alpha) as adapters:
        fill(adapters)
        a, b = (
            next(p.detach().clone() for n, p in adapters.items() if side in n)
            for side in ("lora_A", "lora_B")
        )
    after = weights(tiny_vlm)
    name = f"{target}.weight"
    assert differing(before, after) == [name]
    expected = before[name] + (alpha or rank) / rank * b @ a
    torch.testing.assert_close(after[name], expected)


def test_the_factors_are_those_of_the_change_by_full_path(tiny_vlm):
    targets = linear_paths(tiny_vlm, "projector") + linear_paths(tiny_vlm, "language.layers[0]")
    before = weights(tiny_vlm)
    with lora(tiny_vlm.model, targets, rank=2) as adapters:
        fill(adapters)
    found, after = factors(adapters), weights(tiny_vlm)
    assert set(found) == {f"{path}.lora_{side}.weight" for path in targets for side in "AB"}
    for path in targets:
        change = found[f"{path}.lora_B.weight"] @ found[f"{path}.lora_A.weight"]
        name = f"{path}.weight"
        torch.testing.assert_close(after[name], before[name] + change)


def test_a_merged_model_answers_as_with_its_adapters_and_looks_as_before(tiny_vlm, inputs):
    modules, names = tree(tiny_vlm), list(weights(tiny_vlm))
    attributes = set(vars(tiny_vlm.model))
    targets = [p for part in ("vision", "language") for p in linear_paths(tiny_vlm, part)]
    with lora(tiny_vlm.model, targets, rank=2) as adapters:
        fill(adapters)
        expected = tiny_vlm.model(**inputs).logits
    torch.testing.assert_close(tiny_vlm.model(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
    assert tree(tiny_vlm) == modules
    assert list(weights(tiny_vlm)) == names
    assert set(vars(tiny_vlm.model)) == attributes


def test_adapters_on_the_tower_leave_the_language_models_layers_of_the_same_name(tiny_vlm):
    targets = [p for p in linear_paths(tiny_vlm, "vision") if p.endswith(("q_proj", "v_proj"))]
    assert any(p.endswith("q_proj") for p in linear_paths(tiny_vlm, "language"))
    before = weights(tiny_vlm)
    with lora(tiny_vlm.model, targets, rank=2) as adapters:
        fill(adapters)
    assert set(differing(before, weights(tiny_vlm))) == {f"{target}.weight" for target in targets}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_adapters_are_dropped_after_an_exception(error, tiny_vlm):
    before, modules, attributes = weights(tiny_vlm), tree(tiny_vlm), set(vars(tiny_vlm.model))

    def fail():
        with lora(tiny_vlm.model, linear_paths(tiny_vlm, "vision"), rank=2) as adapters:
            fill(adapters)
            raise error

    with pytest.raises(error):
        fail()
    assert differing(before, weights(tiny_vlm)) == []
    assert tree(tiny_vlm) == modules
    assert set(vars(tiny_vlm.model)) == attributes


def test_adapters_can_be_put_on_again(tiny_vlm):
    targets = linear_paths(tiny_vlm, "projector")
    merged = []
    for seed in range(2):
        with lora(tiny_vlm.model, targets, rank=2) as adapters:
            fill(adapters, seed)
        merged.append(weights(tiny_vlm))
    assert set(differing(*merged)) == {f"{target}.weight" for target in targets}


@pytest.mark.parametrize(
    ("targets", "got"),
    [
        ([], "none"),
        (["q_proj"], "q_proj"),
        (["model.vision_tower.encoder.layers.0.layer_norm1"], r"model\.vision_tower\..*norm1"),
    ],
)
def test_what_is_no_linear_layer_of_the_model_is_refused(targets, got, tiny_vlm):
    modules = tree(tiny_vlm)
    message = f"expected paths of linear layers, got {got}; check what gets an adapter"
    with (
        pytest.raises(LayoutError, match=message),
        lora(tiny_vlm.model, targets, rank=2),
    ):
        pass
    assert tree(tiny_vlm) == modules
