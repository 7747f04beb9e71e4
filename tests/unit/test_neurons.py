from dataclasses import replace

import pytest
import torch

from unsee.data.collate import encode
from unsee.errors import LayoutError
from unsee.models.hooks import observed
from unsee.neurons import Responses, key_covariances, neuron_readers, responses

LANGUAGE = "model.language_model.layers.{}.mlp.down_proj"
VISION = "model.vision_tower.encoder.layers.{}.mlp.fc2"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("language",), [LANGUAGE.format(k) for k in range(3)]),
        (("language.layers[1:]",), [LANGUAGE.format(1), LANGUAGE.format(2)]),
        (("vision",), None),
        (("language.layers[0]", "vision"), None),
    ],
)
def test_readers_of_parts(parts, expected, tiny_vlm):
    found = neuron_readers(tiny_vlm, parts)
    if expected is None:
        used = tiny_vlm.layout.used_vision_blocks(tiny_vlm.model)
        blocks = tiny_vlm.layout.vision_block_paths(tiny_vlm.model)
        expected = [f"{block}.mlp.fc2" for block in blocks[:used]]
        expected += [LANGUAGE.format(0)] if len(parts) == 2 else []
    assert found == expected


@pytest.mark.parametrize(
    "part", ["projector", "head", "vision.blocks[7]", "tower"], ids=lambda part: part
)
def test_a_part_without_neurons_is_refused(part, tiny_vlm):
    with pytest.raises(
        LayoutError, match=r"matches no parameter|has no MLP whose neurons are used"
    ):
        neuron_readers(tiny_vlm, (part,))


def test_a_layer_that_keeps_its_neurons_elsewhere_is_refused(tiny_vlm):
    layer = tiny_vlm.model.model.language_model.layers[1]
    layer.mlp.down_proj = torch.nn.Identity()
    with pytest.raises(LayoutError, match=r"reads a block's neurons at '.*layers\.1\.mlp"):
        neuron_readers(tiny_vlm, ("language",))


def test_sums_by_hand():
    found = Responses.none(2)
    assert found.mean.tolist() == found.variance.tolist() == found.rate.tolist() == [0, 0]
    found.add(torch.tensor([[1.0, 0.0], [-3.0, 0.0]]), level=1.0)
    found.add(torch.tensor([[2.0, -4.0]]), level=1.0)
    assert found.tokens == 3
    assert found.mean.tolist() == pytest.approx([2, 4 / 3])
    assert found.energy.tolist() == pytest.approx([14 / 3, 16 / 3])
    # Firing is above the level, not at it.
    assert found.rate.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found.variance.tolist() == pytest.approx([2 / 3, 32 / 9])


def slow(vlm, records, path, *, answers_only):
    """Mean |z| of each neuron, record by record, from what the layer before computes."""
    layer = vlm.model.get_submodule(path.rpartition(".")[0])
    total, count = 0, 0
    for record in records:
        batch = encode(vlm, [record], answers=True, side="right")
        kept = []
        hook = layer.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
        with torch.no_grad():
            vlm.model(**batch.inputs(), use_cache=False)
            hook.remove()
            z = layer.act_fn(layer.gate_proj(kept[0])) * layer.up_proj(kept[0])
        for position in range(z.shape[1]):
            last = position + 1 == z.shape[1]
            if not answers_only or (not last and batch.labels[0, position + 1] != -100):
                total, count = total + z[0, position].abs().double(), count + 1
    return total / count, count


@pytest.mark.parametrize("answers_only", [False, True])
def test_responses_as_a_slow_loop(answers_only, tiny_vlm, small_split):
    records = (*small_split.forget[:3], *small_split.general[-2:])
    readers = neuron_readers(tiny_vlm, ("language",))
    found = responses(tiny_vlm, records, readers, answers_only=answers_only, batch_size=2)
    for path in readers:
        mean, count = slow(tiny_vlm, records, path, answers_only=answers_only)
        assert found[path].tokens == count
        torch.testing.assert_close(found[path].mean, mean, rtol=1e-4, atol=1e-6)


def test_padding_and_batches_change_nothing(tiny_vlm, small_split):
    records = (*small_split.forget[:3], *small_split.general[-2:])
    readers = neuron_readers(tiny_vlm, ("vision", "language"))
    told = []
    one = responses(tiny_vlm, records, readers, batch_size=1, told=told.append)
    assert told == [1] * 5
    many = responses(tiny_vlm, records, readers, batch_size=5)
    for path in readers:
        assert one[path].tokens == many[path].tokens
        torch.testing.assert_close(one[path].squared, many[path].squared, rtol=1e-4, atol=1e-6)


def test_vision_blocks_see_photos_only(tiny_vlm, small_split):
    readers = neuron_readers(tiny_vlm, ("vision", "language"))
    blind = [replace(record, image=None) for record in small_split.forget[:2]]
    found = responses(tiny_vlm, blind, readers)
    for path in readers:
        assert (found[path].tokens == 0) == ("vision" in path)
        assert found[path].mean.any() == ("vision" not in path)


def test_measuring_leaves_model_and_hooks(tiny_vlm, small_split):
    before = {name: tensor.clone() for name, tensor in tiny_vlm.model.state_dict().items()}
    responses(tiny_vlm, small_split.forget[:2], neuron_readers(tiny_vlm, ("language",)))
    after = tiny_vlm.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module._forward_pre_hooks for module in tiny_vlm.model.modules())


def test_key_covariances_as_a_slow_loop(tiny_vlm, small_split):
    records = (*small_split.forget[:2], *small_split.general[-2:])
    readers = neuron_readers(tiny_vlm, ("language.layers[1:]",))
    found = key_covariances(tiny_vlm, records, readers, batch_size=3)
    for path in readers:
        keys = []
        for record in records:
            with observed(tiny_vlm.model, {path: lambda z, keys=keys: keys.extend(z[0])}):
                batch = encode(tiny_vlm, [record], answers=True, side="right")
                with torch.no_grad():
                    tiny_vlm.model(**batch.inputs(), use_cache=False)
        expected = sum(torch.outer(key, key) for key in keys) / len(keys)
        torch.testing.assert_close(found[path], expected, rtol=1e-3, atol=1e-6)
