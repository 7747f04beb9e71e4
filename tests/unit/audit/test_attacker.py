"""The attacker's budget: the one that brings back most of a control, on half of the people."""

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from unsee.attacks import ATTACKS, attacks_named
from unsee.attacks.protocol import Given
from unsee.audit import attacker
from unsee.audit.attacker import with_picked_budgets
from unsee.audit.attacking import ATTACKED_SET
from unsee.audit.hiding import Hiding
from unsee.errors import ArtifactError

Picked = ATTACKS.get("relearning_picked")
GRID = ((1, 1e-3), (2, 1e-3), (2, 1e-2))
# Of the control and of gold at each budget.
GAINS = {(1, 1e-3): (0.2, 0.1), (2, 1e-3): (0.7, 0.1), (2, 1e-2): (0.9, 0.8)}


@pytest.fixture
def split(small_split):
    return replace(small_split, audit={ATTACKED_SET: small_split.forget})


@pytest.fixture
def told(monkeypatch, tiny_vlm):
    """What was tried, in order; gains are those of the table."""
    tried: list[Any] = []
    state = {"hides": False}

    @contextmanager
    def on():
        state["hides"] = True
        yield tiny_vlm
        state["hides"] = False

    def gain(vlm, attack, split, seed):
        model = "control" if state["hides"] else "gold"
        people = {r.subject for r in (*split.forget, *split.audit[ATTACKED_SET])}
        tried.append((model, attack.steps, attack.lr, attack.shares, people))
        return GAINS[attack.steps, attack.lr][0 if state["hides"] else 1]

    monkeypatch.setattr(attacker, "_gain", gain)
    return tried, Hiding("control-1", "", on)


def test_what_is_gained_beyond_gold_is_what_counts(told, tiny_vlm, split, tmp_path):
    tried, control = told
    attacks: Any = {**attacks_named("crop"), "relearning_picked": Picked(grid=GRID)}
    chosen, said = with_picked_budgets(attacks, tiny_vlm, tiny_vlm, control, split, tmp_path)
    found: Any = chosen["relearning_picked"]
    assert (found.steps, found.lr, found.recovered) == (2, 1e-3, pytest.approx(0.6))
    assert chosen["crop"] is attacks["crop"]
    assert said is not None
    gains = said["relearning_picked"]
    assert (gains["people"], gains["questions"]) == (1, 4)
    assert [g["recovered"] for g in gains["budgets"]] == pytest.approx([0.1, 0.6, 0.1])
    # Half of the two people, and what the others are asked about plays no part.
    (people,) = {frozenset(row[-1]) for row in tried}
    assert len(people) == 1
    assert {row[3] for row in tried} == {(0.2,)}
    assert [row[:2] for row in tried[:2]] == [("control", 1), ("gold", 1)]
    # Without gold the greatest gain is taken.
    alone: Any = with_picked_budgets(attacks, tiny_vlm, None, control, split, None)[0]
    assert (alone["relearning_picked"].lr, alone["relearning_picked"].recovered) == (1e-2, 0.9)


def test_what_was_tried_is_not_tried_again(told, tiny_vlm, split, tmp_path):
    tried, control = told
    attacks: Any = {"relearning_picked": Picked(grid=GRID)}
    given = (attacks, tiny_vlm, tiny_vlm, control, split, tmp_path)
    first = with_picked_budgets(*given)
    (file,) = tmp_path.iterdir()
    # As a kill leaves it.
    file.write_text(json.dumps(json.loads(file.read_text())[:2]))
    tried.clear()
    assert with_picked_budgets(*given) == first
    assert [row[:2] for row in tried] == [("control", 2), ("gold", 2)]
    tried.clear()
    assert with_picked_budgets(*given) == first
    assert not tried
    with_picked_budgets(*given, seed=1)
    assert len(tried) == 6
    file.write_text("[{")
    with pytest.raises(ArtifactError, match=r"attacker-.*: damaged .*; remove it and start again"):
        with_picked_budgets(*given)


def test_without_a_control_there_is_no_budget(told, tiny_vlm, split):
    attacks: Any = attacks_named("relearning_picked,crop")
    chosen, said = with_picked_budgets(attacks, tiny_vlm, None, None, split, None)
    assert (chosen, said) == (attacks, None)
    assert attacks["relearning_picked"].tries(tiny_vlm, Given(split)) == (
        "there is no control that merely hides, on which to pick its budget"
    )


def test_a_weak_budget_says_so():
    assert Picked().why_weak == Picked(recovered=0.3).why_weak == ""
    assert Picked(recovered=0.29).why_weak == (
        "its best budget brings back 29 points of a control that merely hides on development "
        "people, and 30 are needed"
    )


def test_a_gain_is_measured_on_questions_that_were_not_trained_on(tiny_vlm, split, monkeypatch):
    """Training happens between two askings, and is taken back."""
    asked = []

    def answers(vlm, records):
        asked.append(vlm.model.state_dict()[name].clone())
        return [r.answer if len(asked) == 2 else "no" for r in records]

    name = next(n for n in tiny_vlm.model.state_dict() if "multi_modal_projector" in n)
    monkeypatch.setattr(attacker, "generate_answers", answers)
    before = tiny_vlm.model.state_dict()[name].clone()
    relearning = ATTACKS.get("relearning")(shares=(0.5,), steps=1, batch=2)
    assert attacker._gain(tiny_vlm, relearning, split, 0) == 1.0
    assert (asked[0] == before).all()
    assert not (asked[1] == before).all()
    assert (tiny_vlm.model.state_dict()[name] == before).all()
    nothing = replace(split, forget=())
    assert attacker._gain(tiny_vlm, relearning, nothing, 0) == 0.0
