import pytest
import torch
from torch import nn

from unsee.errors import LayoutError
from unsee.models.hooks import captured, observed


class Pair(nn.Module):
    """Returns a tuple, as attention does."""

    def forward(self, x):
        return x + 1, None


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), Pair())


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_outputs_are_collected_by_name_and_hooks_are_gone_afterwards(model):
    with captured(model, {"first": "0", "pair": "1"}) as outputs:
        result, _ = model(torch.ones(1, 2))
        assert torch.equal(outputs["pair"], result)
        assert outputs["first"].requires_grad
    assert torch.equal(outputs["first"] + 1, result)
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_exception(model):
    with pytest.raises(RuntimeError, match="stop"), captured(model, {"first": "0"}):
        raise RuntimeError("stop")
    assert hooks(model) == 0


def test_a_missing_path_is_named_and_leaves_no_hook(model):
    with (
        pytest.raises(LayoutError, match="Sequential has no module at '7'"),
        captured(model, {"first": "0", "other": "7"}),
    ):
        pass
    assert hooks(model) == 0


def test_listening_does_not_change_the_outputs(tiny_vlm):
    tokens = torch.tensor([[1, 60, 70, 80]])
    paths = {"tower": tiny_vlm.layout.language_model, "head": tiny_vlm.layout.head}
    with torch.no_grad():
        plain = tiny_vlm.model(input_ids=tokens).logits
        with captured(tiny_vlm.model, paths) as outputs:
            heard = tiny_vlm.model(input_ids=tokens).logits
    assert torch.equal(plain, heard)
    assert outputs["tower"].shape == (1, 4, 32)


def test_a_pass_ends_when_all_is_said(tiny_vlm):
    tokens = torch.tensor([[1, 60, 70, 80]])
    first, second, last = tiny_vlm.layout.language_layer_paths(tiny_vlm.model)
    with torch.no_grad():
        with captured(tiny_vlm.model, {"first": first, "last": last}) as whole:
            tiny_vlm.model(input_ids=tokens)
        ran = []
        handle = tiny_vlm.model.get_submodule(last).register_forward_hook(lambda *_: ran.append(1))
        with captured(tiny_vlm.model, {"one": first, "two": second}, stop=True) as outputs:
            tiny_vlm.model(input_ids=tokens)
            raise AssertionError("the pass went on")
        handle.remove()
    assert ran == []
    assert torch.equal(outputs["one"], whole["first"])
    assert set(outputs) == {"one", "two"}
    assert hooks(tiny_vlm.model) == 0


def pre_hooks(model):
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def test_functions_are_shown_what_modules_are_given_each_time(model):
    seen = []
    first, second = torch.ones(1, 2), torch.zeros(3, 2)
    with observed(model, {"0": seen.append, "1": lambda x: seen.append(x.shape)}):
        model(first)
        model(second)
    model(first)
    assert torch.equal(seen[0], first)
    assert torch.equal(seen[2], second)
    assert [seen[1], seen[3]] == [(1, 3), (3, 3)]
    assert len(seen) == 4
    assert pre_hooks(model) == 0


def test_nobody_watches_after_an_exception_or_a_missing_path(model):
    def fail(x):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), observed(model, {"0": fail}):
        model(torch.ones(1, 2))
    assert pre_hooks(model) == 0
    with (
        pytest.raises(LayoutError, match="Sequential has no module at '7'"),
        observed(model, {"0": fail, "7": fail}),
    ):
        pass
    assert pre_hooks(model) == 0
