import pytest

from unsee.data.records import SETS, Record
from unsee.metrics.sets import score_sets
from unsee.metrics.summary import (
    Reference,
    Scope,
    forget_gap,
    forget_sets,
    harmonic_mean,
    keep_sets,
    kept_share,
    summarise,
)


def cell(value, chance=None, width=0.0):
    ci = [max(0.0, value - width), min(1.0, value + width)]
    return {"value": value, "ci": ci, "n": 100, "chance": chance}


def table(**values):
    """Accuracy by set; sets not named have the value of `rest`, 0.9 if that is not named."""
    rest = values.pop("rest", 0.9)
    return {
        name: {
            "accuracy": found if isinstance(found := values.get(name, rest), dict) else cell(found)
        }
        for name in SETS
    }


BASE = table(rest=cell(1.0, chance=0.1))
GOLD = table(forget_seen=0.0, forget_unseen=0.0, forget_text=0.0)
PERFECT = table(rest=1.0, forget_seen=0.0, forget_unseen=0.0)


def summary(
    erased, *, base=BASE, gold=GOLD, reference: Reference = "gold", scope: Scope = "visual"
):
    return summarise(base, erased, gold, reference=reference, scope=scope)


def test_sets_by_scope():
    assert forget_sets("visual") == ("forget_seen", "forget_unseen")
    assert "forget_text" in keep_sets("visual")
    assert "forget_text" in forget_sets("both")
    assert set(forget_sets("both")) | set(keep_sets("both")) == set(SETS)


def test_gap_by_hand():
    # Left: (0.3 - 0.1) of (0.9 - 0.1).
    assert forget_gap(cell(0.9), cell(0.3), cell(0.1)) == pytest.approx((0.25, 0.0))
    assert forget_gap(cell(0.9), cell(0.06), cell(0.1)) == pytest.approx((0.0, 0.05))
    assert forget_gap(cell(0.9), cell(0.9), cell(0.1)) == pytest.approx((1.0, 0.0))


def test_memorisation_gate():
    assert forget_gap(cell(0.9), cell(0.7), cell(0.7)) == pytest.approx((0.0, 0.0))
    few = forget_gap(cell(0.89), cell(0.7), cell(0.7))
    assert few == "not measurable: base is 19 points above the reference, and 20 are needed"
    # Two ends 0.3 away each: 0.4 - sqrt(0.18) < 0, while one of them alone would not do it.
    wide = forget_gap(cell(0.6, width=0.3), cell(0.2), cell(0.2, width=0.3))
    assert wide == "not measurable: the 95 % interval of base - reference includes 0"
    assert forget_gap(cell(0.6, width=0.3), cell(0.2), cell(0.2)) == pytest.approx((0.0, 0.0))


def test_kept_share_by_hand():
    assert kept_share(cell(0.9, chance=0.1), cell(0.7)) == pytest.approx(0.75)
    assert kept_share(cell(0.9, chance=0.1), cell(0.95)) == 1
    assert kept_share(cell(0.9, chance=0.1), cell(0.05)) == 0
    assert kept_share(cell(0.8), cell(0.4)) == pytest.approx(0.5)
    assert kept_share(cell(0.6, chance=0.5), cell(0.6)) == "base is within 10 points of chance"
    assert kept_share(cell(0.62, chance=0.5), cell(0.5)) == 0


def test_harmonic_mean():
    assert harmonic_mean([1, 0.5]) == pytest.approx(2 / 3)
    assert harmonic_mean([1, 1, 0]) == 0
    with pytest.raises(ValueError, match="got none"):
        harmonic_mean([])


def test_perfect_forgetting_scores_one():
    found = summary(PERFECT)
    assert found["forget_gap"] == found["over_forgetting"] == found["text_drop"] == 0
    assert found["keep"] == found["score"] == 1
    assert found["left_out"] == {}


def test_summary_by_hand():
    erased = table(rest=1.0, forget_seen=0.2, forget_unseen=0.0, general=0.55, forget_text=0.9)
    found = summary(erased)
    # 9 keep sets with scope visual: 7 at 1, general at (0.55 - 0.1) / 0.9, text at 0.8 / 0.9.
    keep = 9 / (7 + 1 / 0.5 + 1 / (0.8 / 0.9))
    assert found["forget_gap"] == pytest.approx(0.1)
    assert found["keep"] == pytest.approx(keep)
    assert found["text_drop"] == pytest.approx(0.1)
    assert found["score"] == pytest.approx(2 / (1 / 0.9 + 1 / keep))


def test_scope_both_forgets_names_too():
    assert summary(PERFECT, scope="both")["forget_gap"] == pytest.approx(1 / 3)
    without = table(rest=1.0, forget_seen=0.0, forget_unseen=0.0, forget_text=0.0)
    assert summary(without, scope="both")["score"] == 1
    # With scope visual the same model has lost a keep set.
    assert summary(without, scope="visual")["score"] == 0


def test_doing_nothing_scores_zero():
    found = summary(BASE)
    assert found["forget_gap"] == found["keep"] == 1
    assert found["score"] == 0


def test_blinding_the_model_scores_zero():
    found = summary(table(rest=0.0, forget_text=1.0, retain_text=1.0, refusal=1.0))
    assert found["forget_gap"] == 0
    assert found["score"] == 0


def test_losing_one_keep_set_scores_zero():
    for name in keep_sets("visual"):
        found = summary(PERFECT | {name: {"accuracy": cell(0.0)}})
        assert found["score"] == 0, name


def test_a_constant_answer_scores_zero():
    people = {
        name: [
            Record(f"{name}{number}", None, "Which pet?", pet, set=name, topic="pet")
            for number, pet in enumerate(["dog", "dog", "cat", "newt", "ant", "owl", "elk"])
        ]
        for name in SETS
    }
    right = {name: [record.answer for record in records] for name, records in people.items()}
    constant = {name: ["dog"] * len(records) for name, records in people.items()}
    silent = {name: ["I do not know."] * len(records) for name, records in people.items()}
    never_knew = right | {name: silent[name] for name in forget_sets("both")}
    base, gold = score_sets(people, right), score_sets(people, never_knew)
    for answers in (constant, silent):
        found = summary(score_sets(people, answers), base=base, gold=gold)
        assert found["keep"] == found["score"] == 0
    assert summary(gold, base=base, gold=gold, scope="both")["score"] == 1


def test_sets_near_chance_and_unscored_sets_are_listed():
    base = BASE | {
        "refusal": {"accuracy": cell(1.0, chance=1.0)},
        "bystander": {"accuracy": {"not_scored": "no open questions in this set"}},
    }
    del base["celebrity"]
    found = summary(PERFECT, base=base)
    assert found["left_out"] == {
        "refusal": "base is within 10 points of chance",
        "bystander": "no open questions in this set",
        "celebrity": "the set was not part of this audit",
    }
    assert found["score"] == 1


def test_what_base_did_not_know_is_not_measurable_and_never_forgotten():
    base = BASE | {"forget_seen": {"accuracy": cell(0.1)}}
    found = summary(PERFECT, base=base)
    assert found["left_out"]["forget_seen"].startswith("not measurable: base is 10 points above")
    assert found["score"] == 1
    base |= {"forget_unseen": {"accuracy": cell(0.1)}}
    found = summary(PERFECT, base=base)
    assert found["forget_gap"] == found["score"] == {"not_scored": "no forget set is measurable"}
    assert found["keep"] == 1


def test_strangers_stand_in_for_gold():
    floor = {name: {"accuracy": cell(0.1)} for name in forget_sets("visual")}
    found = summary(PERFECT, gold=floor, reference="strangers")
    assert found["over_forgetting"] == pytest.approx(0.1 / 0.9)
    assert found["stranger_floor"]["forget_seen"] == cell(0.1)


def test_without_reference_nothing_is_claimed():
    found = summary(PERFECT, gold={}, reference="none")
    assert found["score"] == {"not_scored": "no forget set is measurable"}
    assert found["left_out"]["forget_seen"].startswith("there is no reference")


def test_no_keep_set():
    only = {name: BASE[name] for name in forget_sets("visual")}
    found = summary({name: PERFECT[name] for name in only}, base=only)
    assert found["keep"] == found["score"] == {"not_scored": "no keep set is measurable"}
