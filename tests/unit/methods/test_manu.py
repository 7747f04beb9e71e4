import math
from dataclasses import replace

import pytest
import torch

from unsee.methods.manu import MANU, forget_score, highest, importance
from unsee.models.load import load
from unsee.neurons import Responses, neuron_readers, responses


def manu(**settings):
    return MANU.model_validate({"batch_size": 4} | settings)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def answered(*rows, level=0.1):
    found = Responses.none(len(rows[0]))
    found.add(torch.tensor(rows), level=level)
    return found


# Formulas.


def test_importance_by_hand():
    # One neuron: 3 and 1 with a photo, 1 and 0 without.
    multi, text = answered([3.0], [-1.0]), answered([1.0], [0.0])
    means = (2 - 0.5) / 2.5
    rates = (1 - 0.5) / 1.5
    spread = math.sqrt(1 + 0.25)
    energies = math.sqrt((5 - 0.5) / 5.5)
    assert importance(multi, text).item() == pytest.approx(means + rates + spread + energies)


def test_a_neuron_that_answers_alike_is_important_by_its_spread_alone():
    same = answered([2.0, 0.0], [2.0, 0.0])
    assert importance(same, same).tolist() == [0, 0]
    varied = answered([1.0], [3.0])
    assert importance(varied, varied).item() == pytest.approx(math.sqrt(2))


def test_importance_without_text_is_full_contrast():
    # A vision block never answers to a question alone.
    multi = answered([2.0], [-2.0])
    assert importance(multi, Responses.none(1)).item() == pytest.approx(3)


def test_importance_as_a_slow_loop():
    generator = torch.Generator().manual_seed(3)
    multi, text = (torch.randn(n, 4, generator=generator) for n in (7, 5))
    found = importance(answered(*multi.tolist(), level=0.5), answered(*text.tolist(), level=0.5))
    for neuron in range(4):
        stats = []
        for side in (multi, text):
            sizes = [abs(z) for z in side[:, neuron].tolist()]
            mean = sum(sizes) / len(sizes)
            stats.append(
                {
                    "mean": mean,
                    "rate": sum(size > 0.5 for size in sizes) / len(sizes),
                    "energy": sum(size**2 for size in sizes) / len(sizes),
                    "variance": sum((size - mean) ** 2 for size in sizes) / len(sizes),
                }
            )
        m, t = stats
        gaps = {k: abs(m[k] - t[k]) / (m[k] + t[k]) for k in ("mean", "rate", "energy")}
        spread = math.sqrt(m["variance"] + t["variance"])
        expected = gaps["mean"] + gaps["rate"] + spread + math.sqrt(gaps["energy"])
        assert found[neuron].item() == pytest.approx(expected, rel=1e-5)


def test_a_neuron_that_never_answers_scores_nothing():
    dead = importance(Responses.none(2), Responses.none(2))
    assert dead.tolist() == [0, 0]
    assert forget_score(dead, dead).tolist() == [0, 0]
    assert forget_score(torch.tensor([3.0]), torch.tensor([2.0])).item() == pytest.approx(1.5)


def test_the_highest_of_all_layers_together():
    scores = {"a": torch.tensor([1.0, 5.0, 2.0]), "b": torch.tensor([4.0, 2.0])}
    taken = {name: mask.tolist() for name, mask in highest(scores, 0.4).items()}
    assert taken == {"a": [False, True, False], "b": [True, False]}
    # At least one; of equals, the earlier.
    assert sum(mask.sum() for mask in highest(scores, 0.01).values()) == 1
    taken = {name: mask.tolist() for name, mask in highest(scores, 0.6).items()}
    assert taken == {"a": [False, True, True], "b": [True, False]}


# The edit.


def test_the_highest_scores_are_silenced_and_nothing_else(tiny_folder, small_split):
    method = manu(share=0.1)
    vlm = load(tiny_folder, dtype="float32", device="cpu")
    before = weights(vlm)
    readers = neuron_readers(vlm, method.parts)
    kept = [r for r in (*small_split.retain, *small_split.general) if r.image is not None]
    sides = []
    for records in (small_split.forget, kept):
        blind = [replace(record, image=None) for record in records]
        multi, text = (responses(vlm, r, readers, level=0.1) for r in (records, blind))
        sides.append({path: importance(multi[path], text[path]) for path in readers})
    ratio = {path: sides[0][path] / (sides[1][path] + 1e-8) for path in readers}
    floor = sorted(torch.cat(list(ratio.values())).tolist())[-int(0.1 * 64 * len(readers))]

    changed = method.edit(vlm, small_split, seed=0)
    after = weights(vlm)
    assert {n for n in before if not torch.equal(before[n], after[n])} == set(changed)
    assert set(changed) <= set(method.editable(vlm))
    pruned = 0
    for path in readers:
        name = f"{path}.weight"
        for neuron in range(before[name].shape[1]):
            silent = not after[name][:, neuron].any()
            # Rounding may decide at the threshold itself.
            if abs(ratio[path][neuron] / floor - 1) > 1e-3:
                assert silent == bool(ratio[path][neuron] > floor)
            if not silent:
                assert torch.equal(before[name][:, neuron], after[name][:, neuron])
            pruned += silent
    assert pruned == int(0.1 * 64 * len(readers))


@pytest.mark.parametrize(
    ("field", "value"),
    [("parts", ("language",)), ("share", 0.3), ("level", 1.0), ("records", 2)],
)
def test_every_field_but_the_size_of_a_pass_changes_what_is_done(
    field, value, tiny_folder, small_split
):
    assert set(MANU.model_fields) == {"parts", "share", "level", "records", "batch_size"}
    outcomes = []
    for settings in ({}, {field: value}):
        vlm = load(tiny_folder, dtype="float32", device="cpu")
        manu(**{"share": 0.1, **settings}).edit(vlm, small_split, seed=0)
        outcomes.append(weights(vlm))
    assert any(not torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])


def test_progress_counts_both_sides_with_and_without_photos(tiny_vlm, small_split):
    told = []
    manu(records=3).edit(tiny_vlm, small_split, seed=0, progress=lambda *args: told.append(args))
    assert {stage for stage, _, _ in told} == {"measure"}
    assert [done for _, done, _ in told] == [3, 6, 9, 12]
    assert {total for _, _, total in told} == {12}
