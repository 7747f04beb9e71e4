import math

import pytest
import torch
from torch import nn

from unsee.errors import LayoutError
from unsee.models.sine import SineBounded, sine_bounded


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2, bias=False))


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# The formula.


def test_by_hand():
    bounded = SineBounded(torch.tensor([[1.0, -2.0]]))
    v = torch.tensor([[math.pi / 2, -math.pi / 6]])
    torch.testing.assert_close(bounded(v), torch.tensor([[2.0, -2.5]]))


def test_it_begins_at_the_weight_and_never_leaves_it_by_more_than_one():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    bounded = SineBounded(weight)
    assert torch.equal(bounded(bounded.right_inverse(weight)), weight)
    far = 1e3 * torch.randn(5, 7, generator=torch.Generator().manual_seed(2))
    assert (bounded(far) - weight).abs().max() <= 1 + 1e-6


def test_values_and_gradients_as_a_slow_loop():
    generator = torch.Generator().manual_seed(3)
    weight, v, pull = torch.randn(3, 2, 4, generator=generator).unbind()
    v.requires_grad_(True)
    found = SineBounded(weight)(v)
    (pull * found).sum().backward()
    assert v.grad is not None
    for row in range(2):
        for column in range(4):
            base, angle = weight[row, column].item(), v[row, column].item()
            assert found[row, column].item() == pytest.approx(base + math.sin(angle), rel=1e-5)
            expected = pull[row, column].item() * math.cos(angle)
            assert v.grad[row, column].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


# Inside a block.


def test_nothing_changes_until_v_does(model):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    before, plain = state(model), model(x)
    names = list(before)
    with sine_bounded(model, ["0", "2"]) as moving:
        assert list(moving) == [
            "0.parametrizations.weight.original",
            "2.parametrizations.weight.original",
        ]
        assert set(moving) <= {name for name, _ in model.named_parameters()}
        assert all(v.requires_grad and not v.any() for v in moving.values())
        assert torch.equal(model(x), plain)
    after = state(model)
    assert list(after) == names == [name for name, _ in model.named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in names)
    assert [type(module) for module in model] == [nn.Linear, nn.GELU, nn.Linear]


def test_the_change_is_merged_and_the_rest_untouched(model):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    before = state(model)
    with sine_bounded(model, ["0"]) as moving:
        (v,) = moving.values()
        with torch.no_grad():
            v.copy_(torch.randn(4, 3, generator=torch.Generator().manual_seed(5)))
        angles, inside = v.detach().clone(), model(x)
        assert not torch.equal(inside, nn.functional.linear(x, before["0.weight"]))
    assert torch.equal(model(x), inside)
    after = state(model)
    assert torch.equal(after["0.weight"], before["0.weight"] + angles.sin())
    assert all(torch.equal(before[n], after[n]) for n in before if n != "0.weight")


def test_after_an_exception_the_weights_are_as_before(model):
    before = state(model)

    def interrupted():
        with sine_bounded(model, ["0", "2"]) as moving, torch.no_grad():
            for v in moving.values():
                v.add_(1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    after = state(model)
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("path", ["1", "7"])
def test_only_linear_layers_are_bounded(path, model):
    with pytest.raises(LayoutError, match=f"expected paths of linear layers, got {path}; check"):
        sine_bounded(model, ["0", path]).__enter__()
    assert type(model[0]) is nn.Linear
