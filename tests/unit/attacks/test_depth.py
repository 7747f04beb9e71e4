"""States of a model in the place of base's: what base then lacks, and where."""

from typing import Any

import numpy as np
import pytest
import torch

from unsee.artifacts import fingerprint
from unsee.attacks import ATTACKS
from unsee.attacks.depth import Drops
from unsee.attacks.protocol import Given
from unsee.models.hooks import edited

Depth = ATTACKS.get("depth")


def read(vlm, split, asked, base) -> Any:
    (one,) = Depth().tries(vlm, Given(split, base=base))
    return one.read(vlm, asked)


def changed(vlm, part) -> dict[str, torch.Tensor]:
    """Moves some weights far; what they were."""
    old = {}
    with torch.no_grad():
        for name, weight in vlm.model.named_parameters():
            if part in name:
                old[name] = weight.detach().clone()
                weight.add_(torch.randn_like(weight))
    assert old, part
    return old


def test_base_lacks_nothing(tiny_vlm, split, asked):
    found = read(tiny_vlm, split, asked, {})
    count = len(tiny_vlm.layout.language_layer_paths(tiny_vlm.model))
    assert found.content.places == ("projector", *(f"language {n + 1}" for n in range(count)))
    np.testing.assert_allclose(found.content.values[:2], 0.0, atol=1e-6)
    # Nothing stands behind a question without a photo.
    assert np.isnan(found.content.values[2]).all()
    np.testing.assert_array_equal(np.isnan(found.success), [False, False, True])


@pytest.mark.parametrize("first", [0, 1, 2])
def test_what_is_changed_in_one_place_is_lacked_from_there_on(first, tiny_vlm, split, asked):
    places = [tiny_vlm.layout.projector, *tiny_vlm.layout.language_layer_paths(tiny_vlm.model)]
    torch.manual_seed(0)
    old = changed(tiny_vlm, f"{places[first]}.")
    before = fingerprint(tiny_vlm.model.state_dict())
    drops = read(tiny_vlm, split, asked, old).content
    assert fingerprint(tiny_vlm.model.state_dict()) == before
    np.testing.assert_allclose(drops.values[:2, :first], 0.0, atol=1e-5)
    # From there on the rest of base is the rest of the model.
    for place in range(first, len(places)):
        np.testing.assert_allclose(drops.values[:2, place], drops.own[:2], atol=1e-4)
    assert np.abs(drops.own[:2]).min() > 1e-3


def test_an_eraser_acts_on_the_states_and_not_on_base(tiny_vlm, split, asked):
    last = tiny_vlm.layout.language_layer_paths(tiny_vlm.model)[-1]
    # One number alone: a norm takes back whatever all of them share.
    push = [lambda hidden, now: torch.cat([hidden[..., :1] + 50.0, hidden[..., 1:]], -1)]
    with edited(tiny_vlm.model, tiny_vlm.layout, {last: push}):
        drops = read(tiny_vlm, split, asked, {}).content
    np.testing.assert_allclose(drops.values[:2, :-1], 0.0, atol=1e-5)
    np.testing.assert_allclose(drops.values[:2, -1], drops.own[:2], atol=1e-4)
    assert np.abs(drops.own[:2]).min() > 1e-3


def test_what_is_left_counts_no_more_than_gold_lacks_by_itself():
    places = ("projector", "language 1")
    gold = Drops(places, np.array([[9.0, 2.0], [0.0, 0.0]]), np.array([4.0, -1.0]))
    mine = Drops(places, np.array([[5.0, 0.0], [3.0, 3.0]]), np.array([5.0, 3.0]))
    left, by_place = Depth()._left(mine, gold)
    # Of 9, what lies above 4 is another language: (4 + 0) of (4 + 2) is absent.
    np.testing.assert_allclose(left, [1 / 3, np.nan])
    assert by_place == pytest.approx({"projector": 0.0, "language 1": 1.0})


def test_weights_of_another_layout(tiny_vlm, split):
    name = next(iter(dict(tiny_vlm.model.named_parameters())))
    given = Given(split, base={name: torch.zeros(1)})
    assert Depth().tries(tiny_vlm, given) == "its weights are not laid out like base's"
