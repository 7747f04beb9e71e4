import pytest
import torch

from unsee.errors import LayoutError
from unsee.methods.grad_diff import GradDiff
from unsee.train import train

SIDES = {"vision": ("vision", "projector"), "language": ("language", "head")}
FEW = {
    "steps": 2,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
}


@pytest.mark.parametrize("lora_rank", [0, 2], ids=["full", "adapters"])
@pytest.mark.parametrize(("tuned", "frozen"), [("vision", "language"), ("language", "vision")])
def test_no_weight_of_one_side_moves_when_the_other_is_tuned(
    tuned, frozen, lora_rank, tiny_vlm, small_split
):
    before = {name: p.detach().clone() for name, p in tiny_vlm.model.named_parameters()}
    method = GradDiff.model_validate(FEW | {"parts": SIDES[tuned], "lora_rank": lora_rank})
    changed = set(train(tiny_vlm, small_split, method).changed)
    after = dict(tiny_vlm.model.named_parameters())
    held = tiny_vlm.layout.parameter_names(tiny_vlm.model, SIDES[frozen])
    assert changed
    assert changed <= set(tiny_vlm.layout.parameter_names(tiny_vlm.model, SIDES[tuned]))
    assert all(torch.equal(before[name], after[name]) for name in held)


def test_some_layers_alone_can_be_adapted(tiny_vlm):
    method = GradDiff.model_validate({"parts": ["language.layers[-1]"], "lora_rank": 2})
    targets = method.lora_targets(tiny_vlm)
    last = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["language.layers[-1]"])
    assert targets
    assert {f"{target}.weight" for target in targets} <= set(last)


def test_adapters_on_the_head_alone_are_refused(tiny_vlm):
    method = GradDiff.model_validate({"parts": ["head"], "lora_rank": 2})
    with pytest.raises(LayoutError, match="lora_rank=2: no linear layer in parts head; add vision"):
        method.lora_targets(tiny_vlm)


def test_an_unknown_part_is_named(tiny_vlm):
    with pytest.raises(LayoutError, match="'tower'"):
        GradDiff.model_validate({"parts": ["tower"]}).trainable(tiny_vlm)
