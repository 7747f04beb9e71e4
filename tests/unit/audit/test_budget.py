"""The strongest attacks that fit into a time, and a choice that lasts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unsee.attacks import ATTACKS, attacks_named
from unsee.attacks.protocol import Given
from unsee.audit import budget
from unsee.audit.attacking import ATTACKED_SET
from unsee.audit.budget import LeftOut, Pace, paced, strengths, strongest, within
from unsee.errors import ArtifactError

RESULT = Path(__file__).parents[3] / "docs/results/hidden-control.json"


def pace(vlm, records):
    return Pace(answer_s=1.0, fit_s=0.5)


def never(vlm, records):
    raise AssertionError("timed again")


@pytest.fixture
def split(small_split):
    return replace(small_split, audit={ATTACKED_SET: small_split.forget})


def test_strongest_first_and_what_does_not_fit_is_passed_over():
    costs = {"weak": 1.0, "new": 3.0, "strong": 6.0, "dear": 90.0, "also new": 2.0}
    known = {"dear": 0.9, "strong": 0.8, "weak": 0.1}
    assert strongest(costs, known, 0.5) == []
    assert strongest(costs, known, 7.0) == ["strong", "weak"]
    # One that was not measured stands before those without power; of two the cheaper first.
    assert strongest(costs, known, 8.0) == ["strong", "also new"]
    assert strongest(costs, known, 12.0) == ["strong", "also new", "new", "weak"]
    assert strongest(costs, known, 102.0)[0] == "dear"


def test_strengths_are_those_of_the_results():
    table = json.loads(RESULT.read_text(encoding="utf-8"))
    told = json.loads((Path(budget.__file__).parent / budget.STRENGTHS).read_text(encoding="utf-8"))
    assert strengths() == table["candidates"][told["control"]]["recovered"]
    assert set(strengths()) <= set(ATTACKS.names())


@pytest.mark.parametrize(
    "name", [n for n, c in ATTACKS.items() if {"steps", "iterations"} & set(c.model_fields)]
)
def test_what_trains_or_fits_says_how_much(name):
    assert ATTACKS.get(name)().rows(10) > 0


def test_costs_are_questions_and_rows_on_every_model(tiny_vlm, split, tmp_path):
    attacks: Any = attacks_named("crop,flip,relearning,removal")
    attacks["relearning"] = ATTACKS.get("relearning")(shares=(0.5,), steps=10, batch=4)
    # Two tries, one, one with 40 rows, and none: there is no eraser. On three models.
    expected = {"crop": 3 * 16, "flip": 3 * 8, "relearning": 3 * (8 + 20), "removal": 0}
    chosen, told = within(attacks, 2.0, tiny_vlm, split, tmp_path, models=3, pace=pace)
    assert told == {"minutes": 2.0, "expected_s": expected, "left_out": ["relearning"]}
    assert list(chosen) == list(attacks)
    assert chosen["crop"] is attacks["crop"]
    left = chosen["relearning"]
    assert isinstance(left, LeftOut)
    assert left.tries(tiny_vlm, Given(split)) == "the budget of 2 minutes leaves no time"
    # What a control took is gone.
    late = within(attacks, 2.0, tiny_vlm, split, None, models=3, pace=pace, spent_s=60.0)[1]
    assert late["left_out"] == ["flip", "relearning"]
    ample = within(attacks, 3.0, tiny_vlm, split, None, models=3, pace=pace)[1]
    assert ample["left_out"] == []


def test_a_choice_lasts(tiny_vlm, split, tmp_path):
    attacks = attacks_named("crop,flip")
    first = within(attacks, 1.0, tiny_vlm, split, tmp_path, models=3, pace=pace)
    assert first[1]["left_out"] == ["flip"]
    again = within(attacks, 1.0, tiny_vlm, split, tmp_path, models=3, pace=never, spent_s=1.0)
    assert again[1] == first[1]
    for other in ({"minutes": 2.0}, {"models": 2}, {"seed": 1}):
        given = {"minutes": 1.0, "models": 3, **other}
        with pytest.raises(AssertionError, match="timed again"):
            within(attacks, vlm=tiny_vlm, split=split, folder=tmp_path, pace=never, **given)
    # It is written at once or not at all: a part of one is damage.
    (tmp_path / budget.FILE_NAME).write_text('{"mark": ')
    with pytest.raises(ArtifactError, match=r"budget\.json: damaged .*; remove it and start again"):
        within(attacks, 1.0, tiny_vlm, split, tmp_path, models=3, pace=pace)


def test_timing_leaves_the_model_alone(tiny_vlm, split):
    flags = [p.requires_grad for p in tiny_vlm.model.parameters()]
    before = [p.clone() for p in tiny_vlm.model.parameters()]
    tiny_vlm.model.requires_grad_(False)
    found = paced(tiny_vlm, split.forget)
    assert found.answer_s > 0
    assert found.fit_s > 0
    assert not any(p.requires_grad for p in tiny_vlm.model.parameters())
    assert all(flags)
    after = tiny_vlm.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
