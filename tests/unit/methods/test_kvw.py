import math

import pytest
import torch

from unsee.methods.kvw import KVW, gates
from unsee.models.load import load
from unsee.neurons import neuron_readers, responses


def kvw(**settings):
    return KVW.model_validate({"gamma": 0.5, "batch_size": 2} | settings)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def edited(folder, split, method, *, seed=0):
    vlm = load(folder, dtype="float32", device="cpu")
    changed = method.edit(vlm, split, seed=seed)
    return changed, weights(vlm)


# The formula.


def test_gates_by_hand():
    found = gates(torch.tensor([4.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]), gamma=0.5)
    assert found.tolist() == pytest.approx([0.5, 1, 1])


def test_without_strength_nothing_is_taken_and_with_much_all():
    forget, retain = torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.0])
    assert gates(forget, retain, gamma=0.0).tolist() == [1, 1]
    assert gates(forget, retain, gamma=1e4).tolist() == [0, 1]


def test_gates_as_a_slow_loop():
    generator = torch.Generator().manual_seed(1)
    forget, retain = torch.rand(2, 50, generator=generator, dtype=torch.float64).unbind()
    found = gates(forget, retain, gamma=0.3).tolist()
    for gate, f, r in zip(found, forget.tolist(), retain.tolist(), strict=True):
        assert gate == pytest.approx(min(1.0, (r / f) ** 0.3))


def test_neurons_that_never_answer():
    zero, some = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert gates(zero, zero, gamma=0.5).item() == 1
    assert gates(zero, some, gamma=0.5).item() == 1
    # What only the forget set uses is taken almost whole, and stays a number.
    assert gates(some, zero, gamma=0.5).item() == pytest.approx(math.sqrt(1e-12), rel=1e-6)


# The edit.


def test_batch_after_batch_on_what_the_last_one_left(tiny_folder, small_split):
    method = kvw(batch_size=len(small_split.forget), epochs=2)
    vlm = load(tiny_folder, dtype="float32", device="cpu")
    readers = neuron_readers(vlm, method.parts)
    kept = (*small_split.retain, *small_split.general)
    retain = responses(vlm, kept, readers, answers_only=True)
    for _ in range(2):
        found = responses(vlm, small_split.forget, readers, answers_only=True)
        for path in readers:
            gate = gates(found[path].mean, retain[path].mean, gamma=0.5).float()
            with torch.no_grad():
                vlm.model.get_submodule(path).weight.mul_(gate)
    changed, after = edited(tiny_folder, small_split, method)
    expected = weights(vlm)
    assert changed == tuple(f"{path}.weight" for path in readers)
    for name in after:
        torch.testing.assert_close(after[name], expected[name], rtol=1e-4, atol=1e-6)
    once = edited(tiny_folder, small_split, kvw(batch_size=len(small_split.forget)))[1]
    assert not all(torch.equal(once[name], after[name]) for name in after)


def test_vectors_get_shorter_and_never_turn(tiny_folder, small_split):
    before = weights(load(tiny_folder, dtype="float32", device="cpu"))
    changed, after = edited(tiny_folder, small_split, kvw())
    assert {n for n in before if not torch.equal(before[n], after[n])} == set(changed)
    for name in changed:
        left = after[name].norm(dim=0) / before[name].norm(dim=0)
        assert (left <= 1 + 1e-5).all()
        assert 0 < (left < 0.99).float().mean() < 1
        torch.testing.assert_close(after[name], before[name] * left, rtol=1e-4, atol=1e-6)


def test_small_gates_add_up_in_half_precision(tiny_folder, small_split):
    """0.999 is 1 in bfloat16, one batch at a time."""
    vlm = load(tiny_folder, dtype="bfloat16", device="cpu")
    before = weights(vlm)
    method = kvw(gamma=0.02, batch_size=1, epochs=3)
    changed = method.edit(vlm, small_split, seed=0)
    shorter = [
        (vlm.model.get_parameter(name).norm(dim=0) < before[name].norm(dim=0)) for name in changed
    ]
    assert torch.cat(shorter).float().mean() > 0.2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parts", ("language.layers[2]",)),
        ("gamma", 0.1),
        ("epochs", 2),
        ("records", 2),
        ("batch_size", 3),
    ],
)
def test_every_field_changes_what_is_done(field, value, tiny_folder, small_split):
    assert set(KVW.model_fields) == {"parts", "gamma", "epochs", "records", "batch_size"}
    plain = edited(tiny_folder, small_split, kvw())[1]
    moved = edited(tiny_folder, small_split, kvw(**{field: value}))[1]
    assert any(not torch.equal(plain[name], moved[name]) for name in plain)


def test_progress_ends_where_it_said(tiny_vlm, small_split):
    told = []
    kvw(records=3).edit(tiny_vlm, small_split, seed=0, progress=lambda *args: told.append(args))
    assert {stage for stage, _, _ in told} == {"weaken"}
    assert told[0][1:] == (3, 11)
    assert told[-1][1:] == (11, 11)
