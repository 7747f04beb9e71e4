"""A control that merely hides: refusals, with all that was known still beneath."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from unsee.answering import generate_answers
from unsee.artifacts import fingerprint
from unsee.attacks import ATTACKS, attacks_named
from unsee.audit import audit, budget, control
from unsee.audit.budget import Pace
from unsee.audit.control import REFUSING, Control, as_asked, hidden, under_control
from unsee.errors import ConfigError
from unsee.metrics.answers import mentions

QUICK = REFUSING.model_copy(
    update={"parts": ("language", "head"), "lr": 3e-3, "forget_batch": 8, "variants": 1}
)


@pytest.fixture
def split(small_split):
    """What is to be hidden, and what to keep."""
    return small_split


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(control, "STEPS", (1, 30))


def known(vlm, records):
    answers = generate_answers(vlm, records)
    return sum(mentions(r, a) for r, a in zip(records, answers, strict=True)) / len(records)


def test_it_hides_no_further_than_it_takes_and_leaves_the_base(knowing_vlm, split, tmp_path):
    before = fingerprint(knowing_vlm.model.state_dict())
    made: Any = hidden(knowing_vlm, split, tmp_path, refusing=QUICK)
    assert isinstance(made, Control), made
    assert made.steps == 30
    assert 0 < made.share < 1
    assert fingerprint(knowing_vlm.model.state_dict()) == before
    with under_control(knowing_vlm, made):
        assert known(knowing_vlm, split.forget) <= control.HIDDEN_AT
    assert fingerprint(knowing_vlm.model.state_dict()) == before
    assert known(knowing_vlm, split.forget) == 1.0
    # A step less of the way, and answers show again.
    old = knowing_vlm.model.state_dict()
    short = {
        name: old[name] + (tensor - old[name]) * (made.share - 1 / 32) / made.share
        for name, tensor in made.tensors.items()
    }
    with under_control(knowing_vlm, replace(made, tensors=short)):
        assert known(knowing_vlm, split.forget) > control.HIDDEN_AT


def test_it_is_made_once(knowing_vlm, split, tmp_path, monkeypatch):
    made: Any = hidden(knowing_vlm, split, tmp_path, refusing=QUICK)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{made.mark}.safetensors"

    def never(*args, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(control, "train", never)
    again: Any = hidden(knowing_vlm, split, tmp_path, refusing=QUICK)
    assert (again.steps, again.share, again.mark) == (made.steps, made.share, made.mark)
    assert all(torch.equal(again.tensors[name], made.tensors[name]) for name in made.tensors)
    for other in ({"seed": 1}, {"refusing": QUICK.model_copy(update={"lr": 1e-3})}):
        with pytest.raises(AssertionError, match="trained again"):
            hidden(knowing_vlm, split, tmp_path, **{"refusing": QUICK, **other})


def test_where_there_is_none_it_says_why(knowing_vlm, tiny_vlm, split):
    text = replace(split, forget=tuple(replace(r, image=None) for r in split.forget))
    assert (
        hidden(knowing_vlm, text, None) == "there are no open questions on photos in forget_unseen"
    )
    tiny_vlm.model.load_state_dict(
        {name: torch.zeros_like(w) for name, w in tiny_vlm.model.state_dict().items()}
    )
    assert (
        hidden(tiny_vlm, split, None) == "the model before answers too few of the questions to hide"
    )


def test_one_step_hides_nothing(knowing_vlm, split, monkeypatch):
    monkeypatch.setattr(control, "STEPS", (1,))
    slow = QUICK.model_copy(update={"lr": 1e-6})
    assert hidden(knowing_vlm, split, None, refusing=slow) == (
        "1 steps of refusing do not hide the answers"
    )


def test_an_audit_makes_its_own(knowing_vlm, tiny_vlm, split, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "REFUSING", QUICK)
    attacks: Any = attacks_named("half_precision")
    grid = {"grid": ((1, 1e-3), (2, 1e-3)), "shares": (0.5,), "batch": 2}
    attacks["relearning_picked"] = ATTACKS.get("relearning_picked").model_validate(grid)
    asked = replace(split, audit={"forget_unseen": split.forget}, forget=split.visible)
    assert as_asked(asked).forget == split.forget
    assert as_asked(asked).visible == split.visible
    result = audit(
        knowing_vlm, asked, erased=knowing_vlm, gold=tiny_vlm, out=tmp_path,
        attacks=attacks, control="auto",
    )  # fmt: skip
    told = result.data["attacks"]
    assert told["control"] == []
    assert told["made_control"]["steps"] == 30
    cell: Any = result.models["erased"].attacks["half_precision"]
    assert cell.control["plain"] <= control.HIDDEN_AT
    assert cell.power is not None
    # The budget of relearning was picked on it.
    picked = told["attacker"]["relearning_picked"]
    assert [b["steps"] for b in picked["budgets"]] == [1, 2]
    learned: Any = result.models["erased"].attacks["relearning_picked"]
    best = max(picked["budgets"], key=lambda b: b["recovered"])
    assert learned.budget["settings"]["steps"] == best["steps"]
    without = audit(knowing_vlm, asked, gold=tiny_vlm, attacks=attacks)
    assert "made_control" not in without.data["attacks"]


def test_an_audit_keeps_within_its_budget(knowing_vlm, tiny_vlm, split, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "paced", lambda vlm, records: Pace(answer_s=1.0, fit_s=1.0))
    asked = replace(split, audit={"forget_unseen": split.forget}, forget=split.visible)
    attacks = attacks_named("half_precision,flip,relearning_picked")
    # Eight questions to two models: 16 s for a mirror, 32 s for two precisions, and long lessons.
    given: Any = {"gold": tiny_vlm, "out": tmp_path, "attacks": attacks}
    result = audit(knowing_vlm, asked, **given, budget=0.5)
    told = result.data["attacks"]["budget"]
    assert told["left_out"] == ["half_precision", "relearning_picked"]
    assert (told["expected_s"]["flip"], told["expected_s"]["half_precision"]) == (16.0, 32.0)
    cells: Any = result.models["base"].attacks
    assert cells["flip"].n == 8
    assert cells["half_precision"].not_scored == "the budget of 0.5 minutes leaves no time"
    assert (
        "Attacks half_precision, relearning_picked: not run, since the budget of 0.5 minutes "
        "leaves no time."
    ) in result.verdict.not_run
    with pytest.raises(ConfigError, match="budget: expected minutes above 0, got 0"):
        audit(knowing_vlm, asked, **given, budget=0)
    with pytest.raises(ConfigError, match="a budget is for attacks, got none"):
        audit(knowing_vlm, asked, budget=1.0)
