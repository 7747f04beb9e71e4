"""The claim ladder: what each rung needs, and what holds a claim below it."""

from typing import Any

import pytest

from unsee.report import html, markdown
from unsee.report.ladder import ATTACKS, FEWEST_PEOPLE, LADDER, RUNGS
from unsee.report.verdict import steps, verdict_of

INSIDE = "internally removed at tested layers"
AS_GOLD = "indistinguishable from gold under tested attacks"


def shown(group, gap=0.0, half=0.02, power: bool | None = True, **more):
    cell: dict[str, Any] = {
        "value": max(0.0, gap),
        "ci": [0.0, 1.0],
        "n": 320,
        "group": group,
        "power": power,
        "power_why": "it brings back 60 points of a control that merely hides",
        "above_gold": {"value": gap, "ci": [gap - half, gap + half]},
    }
    return cell | more


@pytest.fixture
def climbed(sample, report_of):
    """The verdict on a good run after some attacks."""

    def judge(kind="weights", **attacks):
        data = sample(kind=kind)
        data["models"]["erased"]["attacks"] = attacks
        return report_of(data)

    return judge


def all_groups(**other):
    return {f"{group}_1": shown(group) for group in ATTACKS} | other


def test_the_rungs_are_those_of_the_report_in_their_order():
    assert list(RUNGS) == [
        "not measurable",
        "not forgotten",
        "suppressed",
        "behaviourally forgotten",
        INSIDE,
        AS_GOLD,
    ]
    assert LADDER[0].checks == ()
    assert all(rung.needs and rung.checks for rung in LADDER[1:])


def test_each_rung_is_reached_by_what_it_needs_and_no_more(climbed):
    assert climbed().verdict.rung == "behaviourally forgotten"
    assert climbed(head=shown("readout")).verdict.rung == INSIDE
    assert climbed(**all_groups()).verdict.rung == AS_GOLD
    assert climbed(**all_groups()).verdict.not_run == []


@pytest.mark.parametrize("group", [group for group in ATTACKS if group != "readout"])
def test_one_group_that_was_not_run_is_enough_to_stay_below(group, climbed):
    attacks = all_groups()
    del attacks[f"{group}_1"]
    report = climbed(**attacks)
    assert report.verdict.rung == INSIDE
    assert report.verdict.not_run == [f"{ATTACKS[group]}: not run."]
    assert steps(report)[0].lacks == (group,)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (shown("readout", power=False), "no power on this model"),
        (
            shown("readout", power=None),
            "run, but whether it would find here what is merely hidden was not tested",
        ),
        (
            shown("readout", above_gold={"not_scored": "there is no gold model"}),
            "run, but not compared with a model that never knew",
        ),
        ({"not_scored": "the model gives no states"}, "not run"),
    ],
)
def test_readout_without_power_or_without_gold_shows_nothing(cell, why, climbed):
    report = climbed(head=cell)
    assert report.verdict.rung == "behaviourally forgotten"
    assert f"{ATTACKS['readout']}: {why}." in report.verdict.not_run


@pytest.mark.parametrize(
    ("gap", "half", "rung"),
    [
        (0.05, 0.04, INSIDE),
        (0.06, 0.01, "behaviourally forgotten"),
        (0.03, 0.08, "behaviourally forgotten"),
        (-0.10, 0.02, INSIDE),
    ],
)
def test_readout_stays_within_five_points_of_gold_surely(gap, half, rung, climbed):
    report = climbed(one=shown("readout"), two=shown("readout", gap, half))
    assert report.verdict.rung == rung
    if rung != INSIDE:
        assert report.verdict.because[0].startswith(f"{ATTACKS['readout']}: two finds ")


@pytest.mark.parametrize("group", ATTACKS)
@pytest.mark.parametrize(
    ("gap", "half", "rung"),
    [(0.02, 0.02, AS_GOLD), (0.03, 0.02, INSIDE), (0.0, 0.11, INSIDE)],
)
def test_as_gold_wants_every_difference_within_its_interval(group, gap, half, rung, climbed):
    if group == "readout" and half > 0.1:
        rung = "behaviourally forgotten"
    report = climbed(**all_groups(other=shown(group, gap, half)))
    assert report.verdict.rung == rung


def test_what_has_no_power_stands_for_nothing_but_what_it_finds_does(climbed):
    weak = shown("weights", 0.03, 0.01, power=False)
    assert climbed(**all_groups(weak=weak)).verdict.rung == AS_GOLD
    found = shown("weights", 0.3, 0.01, power=False)
    report = climbed(**all_groups(found=found))
    assert report.verdict.rung == INSIDE
    assert report.verdict.because[0] == (
        f"{ATTACKS['weights']}: found tells it from a model that never knew, or might (+30.0 "
        "points, +29.0 to +31.0)."
    )


def test_what_works_at_test_time_suppresses_at_most(climbed):
    report = climbed(kind="eraser", **all_groups())
    assert report.verdict.rung == "suppressed"
    assert "leaves its weights alone" in report.verdict.because[0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_too_few_people_are_insufficient(count, sample, report_of):
    data = sample(people=[f"Person {number}" for number in range(count)])
    verdict = report_of(data).verdict
    if count >= FEWEST_PEOPLE:
        assert verdict.rung == "behaviourally forgotten"
        return
    were = "1 person was" if count == 1 else f"{count} people were"
    assert verdict.rung == "suppressed"
    assert verdict.because[0] == (
        f"Insufficient: {were} tested, and intervals by person need at least 4; with fewer their "
        "ends are only the best and the worst person."
    )


def test_people_of_whom_nothing_was_known_are_not_tested(sample, report_of):
    data = sample(people=[f"Person {number}" for number in range(5)])
    data["request"]["probes"] = [
        {"subject": f"Person {number}", "topic": topic, "known": number < 3 and topic == "name"}
        for number in range(5)
        for topic in ("name", "birthplace")
    ]
    assert report_of(data).verdict.because[0].startswith("Insufficient: 3 people were tested")


def test_the_verdict_is_what_the_report_itself_supports(sample, report_of):
    report = report_of(sample())
    assert verdict_of(report) == report.verdict


def test_the_ladder_is_shown_with_what_is_lacking(climbed):
    report = climbed(head=shown("readout"), crop=shown("images", power=None))
    top, inside, behaviour, suppressed = steps(report)
    assert [top.stands, inside.stands] == ["not shown", "claimed"]
    assert (behaviour.stands, suppressed.stands) == ("below", "below")
    assert top.lacks == ("relearning", "prompts", "images", "weights", "membership")
    assert behaviour.lacks == inside.lacks == ()
    rows = [line for line in markdown.render(report).splitlines() if line.startswith("| indisting")]
    assert rows[0].endswith("| relearning, prompts, images, weights, membership |")
    page = html.render(report)
    assert "(not there yet: relearning, prompts, images, weights, membership)" in page
    assert page.count('aria-current="step"') == 1


def test_a_claim_of_a_later_version_is_on_no_rung(sample, report_of):
    report = report_of(sample())
    later = report.model_copy(
        update={"verdict": report.verdict.model_copy(update={"rung": "gone for good"})}
    )
    assert {step.stands for step in steps(later)} == {"not shown"}
