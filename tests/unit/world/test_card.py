"""The world card on a model that was never trained: what it asks, and which bars it misses."""

import pytest

from unsee.world.card import BARS, _bars, card_sets
from unsee.world.profiles import make_profiles

PERFECT = {"value": 1.0, "wrong_name_rate": 0.0, "unknown_rate": 0.0}


def figures(**changed):
    names = {
        "people_unseen", "people_text", "others_unseen", "others_text", "candidates_unseen",
        "candidates_text", "visible_known", "visible_candidates", "general", "strangers",
        "strangers_near", "unknown_names", "refusal",
    }  # fmt: skip
    return {name: dict(PERFECT) | changed.get(name, {}) for name in names}


FORGOT = {"value": 0.0, "unknown_rate": 0.9}
GOLD = figures(candidates_unseen=FORGOT, candidates_text=FORGOT)


def test_the_card_asks_the_reported_half_about_everybody(world):
    sets = card_sets(world)
    profiles = make_profiles(0)
    everybody = {p.name for p in profiles}
    assert sets.keys() == figures().keys()
    assert {r.subject for r in sets["people_unseen"]} == everybody
    assert {r.subject for r in sets["candidates_unseen"]} == {
        p.name for p in profiles if p.is_candidate
    }
    assert len(sets["candidates_text"]) + len(sets["others_text"]) == len(sets["people_text"])
    assert {r.form for records in sets.values() for r in records} == {"open"}
    assert not any("/dev/" in str(r.image) for records in sets.values() for r in records)
    # Each on a photo of its own, and enough of them to tell a share of 3 %.
    for name in ("strangers", "strangers_near"):
        assert len({r.image for r in sets[name]}) == len(sets[name]) == 500


def test_a_perfect_pair_of_models_meets_every_bar():
    assert all(_bars(figures(), GOLD, 0.5).values())


@pytest.mark.parametrize("name", BARS)
def test_a_base_below_a_bar_is_told(name):
    base = figures(**{name: {"value": BARS[name] - 0.001}})
    # Gold is as weak, so that it stays like base.
    gold = GOLD | {name: base[name]}
    missed = {bar for bar, met in _bars(base, gold, 0.5).items() if not met}
    assert missed == {f"base {name}"}


@pytest.mark.parametrize(
    ("base", "gold", "neighbours", "missed"),
    [
        ({"strangers": {"wrong_name_rate": 0.031}}, {}, 0.5, "base strangers named"),
        ({}, {"candidates_unseen": FORGOT | {"value": 0.06}}, 0.5, "gold candidates_unseen right"),
        (
            {},
            {"candidates_text": FORGOT | {"unknown_rate": 0.5}},
            0.5,
            "gold candidates_text mostly unknown",
        ),
        ({}, {"refusal": {"value": 0.96}}, 0.5, "gold refusal like base"),
        ({}, {}, 0.71, "pixel neighbours"),
    ],
)
def test_every_other_bar_is_told_when_missed(base, gold, neighbours, missed):
    bars = _bars(figures(**base), figures(**gold) | _forgot(gold), neighbours)
    assert [bar for bar, met in bars.items() if not met] == [missed]


def _forgot(gold):
    """The candidates stay forgotten where a case does not say otherwise."""
    names = ("candidates_unseen", "candidates_text")
    return {name: gold.get(name, FORGOT) | {"wrong_name_rate": 0.0} for name in names}
