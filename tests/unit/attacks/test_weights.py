import pytest
import torch

from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given
from unsee.attacks.weights import merged, pruned, quantised

HalfPrecision, Merge, Removal = (
    ATTACKS.get(name) for name in ("half_precision", "merge", "removal")
)


def state(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def changed(vlm, before):
    return {n for n, t in vlm.model.state_dict().items() if not torch.equal(t, before[n])}


def test_rounding_by_hand():
    weight = torch.tensor([[7.0, -3.4, 0.6, 0.0], [0.0, 0.0, 0.0, 0.0], [0.07, 0.021, -0.07, 0.0]])
    expected = [[7, -3, 1, 0], [0, 0, 0, 0], [0.07, 0.02, -0.07, 0]]
    assert quantised(weight, 4) == pytest.approx(torch.tensor(expected))
    with pytest.raises(ValueError, match="bits must be at least 2, got 1"):
        quantised(weight, 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_is_that_of_a_slow_loop(bits):
    weight = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(1))
    top = 2 ** (bits - 1) - 1
    for channel, found in zip(weight, quantised(weight, bits), strict=True):
        scale = max(abs(v) for v in channel.flatten().tolist()) / top
        for value, rounded in zip(channel.flatten(), found.flatten(), strict=True):
            assert rounded.item() == pytest.approx(round(value.item() / scale) * scale, rel=1e-5)


def test_many_bits_change_nothing_and_rounding_twice_is_rounding_once():
    weight = torch.randn(8, 16)
    torch.testing.assert_close(quantised(weight, 16), weight, rtol=0, atol=2e-4)
    torch.testing.assert_close(quantised(quantised(weight, 4), 4), quantised(weight, 4))
    assert quantised(weight.half(), 4).dtype == torch.float16


def test_pruning_by_hand():
    weight = torch.tensor([[0.5, -0.1], [-2.0, 0.2], [0.0, 3.0]])
    assert pruned(weight, 0.5).tolist() == [[0.5, 0], [-2, 0], [0, 3]]
    assert pruned(weight, 0.0).tolist() == weight.tolist()
    assert not pruned(weight, 1.0).any()


def test_merging_goes_all_the_way_or_none():
    weight, base = torch.randn(4, 4), torch.randn(4, 4)
    torch.testing.assert_close(merged(weight, base, 0.5), (weight + base) / 2)
    assert torch.equal(merged(weight, base, 1.0), base)


@pytest.mark.parametrize("name", ["half_precision", "int8", "int4", "pruning"])
def test_weights_change_inside_and_come_back_bit_for_bit(name, tiny_vlm, split):
    before = state(tiny_vlm)
    for one in ATTACKS.get(name)().tries(tiny_vlm, Given(split)):
        with one.change(tiny_vlm):
            names = changed(tiny_vlm, before)
            assert names
            if name != "half_precision":
                assert not [n for n in names if "lm_head" in n or "embed" in n]
        assert not changed(tiny_vlm, before)
        with pytest.raises(KeyboardInterrupt), one.change(tiny_vlm):
            raise KeyboardInterrupt
        assert not changed(tiny_vlm, before)


def test_half_precision_is_what_the_type_can_hold(tiny_vlm, split):
    float16, bfloat16 = HalfPrecision().tries(tiny_vlm, Given(split))
    for one, dtype in ((float16, torch.float16), (bfloat16, torch.bfloat16)):
        with one.change(tiny_vlm):
            for weight in tiny_vlm.model.parameters():
                assert torch.equal(weight, weight.to(dtype).to(weight.dtype))


def test_a_merge_lies_between_the_model_and_base(tiny_vlm, split):
    name = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])[0]
    base = {name: tiny_vlm.model.state_dict()[name].clone() + 1.0}
    before = state(tiny_vlm)
    (one,) = Merge(share=0.25).tries(tiny_vlm, Given(split, changes_weights=True, base=base))
    with one.change(tiny_vlm):
        assert changed(tiny_vlm, before) == {name}
        torch.testing.assert_close(tiny_vlm.model.state_dict()[name], before[name] + 0.25)
    assert not changed(tiny_vlm, before)


def test_what_cannot_be_merged_says_why(tiny_vlm, split):
    assert Merge().tries(tiny_vlm, Given(split)) == "the erased model has base's own weights"
    (one,) = Merge().tries(tiny_vlm, Given(split, changes_weights=True))
    assert one.change is None
    name = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])[0]
    other = Given(split, changes_weights=True, base={name: torch.zeros(3)})
    assert Merge().tries(tiny_vlm, other) == "its weights are not laid out like base's"


def test_there_must_be_an_eraser_to_take_off(tiny_vlm, split):
    assert Removal().tries(tiny_vlm, Given(split)) == "there is no eraser to take off"
    assert len(Removal().tries(tiny_vlm, Given(split, has_eraser=True))) == 1
