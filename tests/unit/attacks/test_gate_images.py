"""Photos that keep a gate silent: within their budget, as files, and the same for every model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from unsee.attacks import ATTACKS
from unsee.attacks.gate_images import gate_margins
from unsee.attacks.pictures import opened
from unsee.attacks.protocol import Given
from unsee.data.collate import encode
from unsee.models.hooks import edited
from unsee.models.load import load
from unsee.models.passes import bypassed
from unsee.models.tiny import tiny_model

GateImages = ATTACKS.get("gate_images")
FEW = GateImages(budgets=(4 / 255, 16 / 255), below=0.01)


def gated(vlm, bias=0.02):
    """A gate that reads one direction of the last prompt token's state, and pushes nothing."""
    path = vlm.layout.language_layer_paths(vlm.model)[1]
    weights = torch.linspace(-1, 1, 32)

    def edit(hidden, now):
        if now.prefill:
            last = hidden[torch.arange(len(hidden)), now.last]
            now.decided((last @ weights) / 32 + bias)
        return hidden

    return edited(vlm.model, vlm.layout, {path: [edit]})


def margins(vlm, records, bias=0.02):
    with gated(vlm, bias), torch.no_grad():
        return gate_margins(vlm, encode(vlm, records, answers=False, side="left"))[0]


def pixels(vlm, record) -> Any:
    return encode(vlm, [record], answers=False, side="left").pixel_values


def nobody(records):
    raise AssertionError("the model was asked")


@pytest.fixture
def loud(tiny_vlm, asked):
    """How high the gate must be set so that it fires on what is asked."""
    return 0.02 - float(margins(tiny_vlm, asked[:2], bias=0.0).min())


def run(vlm, given, asked, bias, attack=FEW):
    found = attack.tries(vlm, given)
    assert not isinstance(found, str), found
    with gated(vlm, bias):
        return {one.name: one.ask(asked, nobody) for one in found}


def test_the_gate_falls_silent_within_the_budget(tiny_vlm, split, asked, loud):
    given = Given(split, has_eraser=True)
    found = run(tiny_vlm, given, asked, loud, FEW.model_copy(update={"below": 100.0}))
    assert list(found) == ["4 of 255", "16 of 255"]
    before = margins(tiny_vlm, asked[:2], loud)
    assert (before > 0).all()
    lowest = before
    for budget, records in zip((4, 16), found.values(), strict=True):
        assert [r and (r.question, r.answer) for r in records] == [
            *((r.question, r.answer) for r in asked[:2]),
            None,
        ]
        after = margins(tiny_vlm, records[:2], loud)
        assert (after < lowest).all()
        lowest = after
        for record, own in zip(records[:2], asked[:2], strict=True):
            deviation = torch.tensor(tiny_vlm.processor.image_processor.image_std)
            change = pixels(tiny_vlm, record) - pixels(tiny_vlm, own)
            moved = change.abs() * deviation[:, None, None] * 255
            # Half a level is lost in rounding.
            assert budget - 1 <= moved.max() <= budget + 0.51
    assert (lowest <= 0).all()


def test_the_answer_plays_no_part(tiny_vlm, split, asked, loud):
    """Everything that is done is done from the question and the photo."""
    others = [replace(record, answer="nobody") for record in asked]
    one, other = (
        run(tiny_vlm, Given(split, has_eraser=True), records, loud) for records in (asked, others)
    )
    for name, records in one.items():
        for record, again in zip(records[:2], other[name][:2], strict=True):
            assert again == replace(record, answer="nobody")


def test_a_photo_on_which_the_gate_is_silent_stays(tiny_vlm, split, asked):
    found = run(tiny_vlm, Given(split, has_eraser=True), asked, -100.0)
    assert [records[:2] for records in found.values()] == [asked[:2]] * 2


def test_it_stops_where_the_gate_is_far_enough_below(tiny_vlm, split, asked, loud):
    """A smaller slack leaves more of the photo as it was."""
    moved = []
    for below in (0.0, 100.0):
        attack = GateImages(budgets=(16 / 255,), below=below)
        (records,) = run(tiny_vlm, Given(split, has_eraser=True), asked, loud, attack).values()
        pictures = [
            np.asarray(opened(r.image).resize((48, 48)), float) for r in (records[0], asked[0])
        ]
        moved.append(np.abs(pictures[0] - pictures[1]).mean())
    assert moved[0] < moved[1]


def test_the_other_models_are_shown_the_same_photos(tiny_vlm, split, asked, loud):
    given = Given(split, has_eraser=True)
    found = run(tiny_vlm, given, asked, loud)
    plain = FEW.tries(tiny_vlm, given)
    assert {one.name: one.ask(asked, nobody) for one in plain} == found
    # Without an erased model before them there is nothing to show.
    alone = FEW.tries(tiny_vlm, Given(split, has_eraser=True))
    assert [one.ask(asked, nobody) for one in alone] == [[None] * 3] * 2


def test_an_eraser_that_decides_nothing_cannot_be_kept_silent(tiny_vlm, split, asked):
    path = tiny_vlm.layout.language_layer_paths(tiny_vlm.model)[0]
    found = FEW.tries(tiny_vlm, Given(split, has_eraser=True))
    with edited(tiny_vlm.model, tiny_vlm.layout, {path: [lambda hidden, now: hidden]}):
        assert found[0].ask(asked, nobody) == [None] * 3
    with gated(tiny_vlm), bypassed():
        assert found[0].ask(asked, nobody) == [None] * 3


def test_what_it_cannot_be_run_on(tiny_vlm, split, tmp_path):
    given = Given(split, has_eraser=True)
    assert FEW.tries(tiny_vlm, Given(split)) == (
        "there is no eraser whose gate could be kept silent"
    )
    assert FEW.tries(tiny_vlm, replace(given, split=replace(split, forget=()))) == (
        "the method was given no photos"
    )
    tiles = load(tiny_model("llava_next", tmp_path / "next"), dtype="float32", device="cpu")
    assert "expected pixel values of whole photos or flattened patches, got shape" in FEW.tries(
        tiles, given
    )
    # Photos that are spread anew each time they are read.
    tiny_vlm.processor.image_processor.crop_size = {"height": 40, "width": 40}
    assert FEW.tries(tiny_vlm, given) == (
        "family llava takes a photo that was drawn from pixel values for another"
    )


def test_flattened_patches_are_photos_too(tmp_path, split, asked):
    vlm = load(tiny_model("qwen2_5_vl", tmp_path / "qwen"), dtype="float32", device="cpu")
    loud = 0.02 - float(margins(vlm, asked[:2], bias=0.0).min())
    (records,) = run(
        vlm, Given(split, has_eraser=True), asked, loud, GateImages(budgets=(32 / 255,), below=0.0)
    ).values()
    assert (margins(vlm, records[:2], loud) < margins(vlm, asked[:2], loud) - 0.01).all()
