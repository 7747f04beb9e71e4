"""Attacks in a report: rows, sentences, and what they do to the verdict."""

import pytest

from unsee.report import html, markdown, plots
from unsee.report.attempts import attempts


def cell(value, *, group, gap=None, power=None, why="no control", low=None):
    found = {
        "value": value,
        "ci": [max(0.0, value - 0.05), min(1.0, value + 0.05)],
        "n": 320,
        "group": group,
        "budget": {"tries": 3, "settings": {}},
        "plain": 0.01,
        "tries": {"text 1": value},
    }
    if gap is not None:
        low = gap - 0.03 if low is None else low
        found |= {
            "above_gold": {"value": gap, "ci": [low, gap + 0.03]},
            "base_kept": 0.95,
            "power": power,
            "power_why": why,
        }
    return found


@pytest.fixture
def attacked(sample):
    """The sample with some attacks: `attacked(crop=(group, value, gap, ...))`."""

    def build(**cells):
        data = sample()
        for name, given in cells.items():
            for model, value in (("base", 0.97), ("gold", 0.0)):
                row = given if "not_scored" in given else cell(value, group=given["group"])
                data["models"][model]["attacks"][name] = row
            data["models"]["erased"]["attacks"][name] = given
        return data

    return build


def test_without_attacks_a_report_says_what_it_said(sample, report_of):
    verdict = report_of(sample()).verdict
    assert not any("ttack" in sentence for sentence in verdict.because)
    assert "## Attempts" not in markdown.render(report_of(sample()))
    assert "Attempts to bring it back" not in html.render(report_of(sample()))


def test_attacks_that_were_not_run_alike_are_named_together(attacked, report_of):
    late = {"not_scored": "the budget of 5 minutes leaves no time"}
    data = attacked(crop=late, turns={"not_scored": "prompts hold one turn"}, blur=late)
    assert report_of(data).verdict.not_run[-2:] == [
        "Attacks crop, blur: not run, since the budget of 5 minutes leaves no time.",
        "Attack turns: not run, since prompts hold one turn.",
    ]


def test_growing_budgets_are_curves(attacked, report_of):
    data = attacked(
        relearning=cell(0.4, group="relearning") | {"tries": {"5%": 0.1, "20%": 0.4}},
        crop=cell(0.4, group="images") | {"tries": {"middle": 0.1, "anywhere": 0.4}},
        merge=cell(0.4, group="weights") | {"tries": {"0.5 of base": 0.4}},
        blur={"not_scored": "the budget of 5 minutes leaves no time"},
    )
    for model, last in (("base", 1.0), ("gold", 0.02)):
        data["models"][model]["attacks"]["relearning"]["tries"] = {"5%": 0.0, "20%": last}
    (curve,) = plots.curves(report_of(data))
    assert (curve.name, curve.budgets) == ("relearning", ("0", "5%", "20%"))
    assert curve.shares == {
        "base": (0.01, 0.0, 1.0),
        "erased": (0.01, 0.1, 0.4),
        "gold": (0.01, 0.0, 0.02),
    }
    page = html.render(report_of(data))
    assert page.count("Answers brought back against the budget") == 1
    del data["models"]["erased"]["attacks"]["relearning"]["tries"]["20%"]
    # A model without one of the points has no line; without two points there is no curve.
    (curve,) = plots.curves(report_of(data))
    assert list(curve.shares) == ["base", "gold"]


def test_what_was_found_and_what_was_not_is_said(attacked, report_of):
    data = attacked(
        merge=cell(0.4, group="weights", gap=0.4),
        crop=cell(0.02, group="images", gap=0.02),
        blur=cell(0.01, group="images", gap=0.01, power=True, why="it brings back 60 points"),
        prefix=cell(0.0, group="prompts", gap=0.0, power=False, why="base keeps 12 %"),
        turns={"not_scored": "prompts hold one turn"},
    )
    verdict = report_of(data).verdict
    said = " ".join(verdict.because)
    assert "other photos of them: merge, crop, blur, prefix." in said
    assert (
        "more than 5 points above a model that never knew: merge (+40.0 points, +37.0 to +43.0)."
        in said
    )
    assert "no more than that, and have power here: blur." in said
    assert "since there was no control: crop." in said
    assert "Attack turns: not run, since prompts hold one turn." in verdict.not_run
    assert "Attack prefix: no power on this model: base keeps 12 %." in verdict.not_run
    lines = " ".join(verdict.not_run)
    assert "Altered photos" not in lines
    assert "Compressing" not in lines
    assert (
        "Trick questions and rewordings meant to draw the answers out: no power on this model."
        in lines
    )
    # Weights that were mixed with the old ones are not the model that was asked.
    assert verdict.rung == "behaviourally forgotten"


@pytest.mark.parametrize(("group", "rung"), [
    ("prompts", "suppressed"),
    ("images", "suppressed"),
    ("weights", "behaviourally forgotten"),
])  # fmt: skip
def test_an_answer_to_another_wording_is_behaviour(group, rung, attacked, report_of):
    verdict = report_of(attacked(some=cell(0.06, group=group, gap=0.06))).verdict
    assert verdict.rung == rung
    if rung == "suppressed":
        assert (
            "on changed photos it answers what a model that never knew does not"
            in verdict.because[0]
        )


@pytest.mark.parametrize("more", [{"gap": 0.05}, {"gap": 0.06, "low": -0.01}])
def test_little_or_uncertain_does_not_hold_the_verdict_down(more, attacked, report_of):
    data = attacked(prefix=cell(0.06, group="prompts", **more))
    assert report_of(data).verdict.rung == "behaviourally forgotten"


def test_what_is_found_counts_even_where_base_loses_much(attacked, report_of):
    data = attacked(prefix=cell(0.3, group="prompts", gap=0.3, power=False, why="base keeps 50 %"))
    verdict = report_of(data).verdict
    assert verdict.rung == "suppressed"
    assert not any("no power" in line for line in verdict.not_run)


def test_without_gold_nothing_is_said_to_have_come_back(attacked, report_of):
    row = cell(0.3, group="prompts")
    row |= {"above_gold": {"not_scored": "there is no gold model"}, "power": None}
    data = attacked(prefix=row)
    verdict = report_of(data).verdict
    assert any(
        "never knew (there is no gold model), so that what they brought back is not known: prefix."
        in line
        for line in verdict.because
    )
    assert verdict.rung == "behaviourally forgotten"


def test_a_row_an_attack_in_every_view(attacked, report_of):
    report = report_of(
        attacked(
            merge=cell(0.4, group="weights", gap=0.4),
            turns={"not_scored": "prompts hold one turn"},
        )
    )
    merge, turns = attempts(report)
    assert (merge.name, merge.tries) == ("merge", "3")
    assert merge.above == "+40.0 points, +37.0 to +43.0"
    assert merge.power == "not tested: no control"
    assert (turns.tries, turns.above, turns.power) == ("-", "-", "-")
    text = markdown.render(report)
    line = next(line for line in text.splitlines() if line.startswith("| merge"))
    assert "40.0 % (35.0 to 45.0)" in line
    assert "+40.0 points" in line
    assert "not scored: prompts hold one turn" in text
    page = html.render(report)
    assert "+40.0 points, +37.0 to +43.0" in page
    assert "prompts hold one turn" in page


def test_what_relearning_gains_stands_beside_what_that_is(attacked, report_of):
    row = cell(0.6, group="relearning", gap=0.5)
    row["gain"] = {
        "value": 0.48, "ci": [0.4, 0.55], "tries": {"20%": 0.48}, "definition": "AG is a mean",
    }  # fmt: skip
    because = report_of(attacked(relearning=row)).verdict.because
    assert (
        "Average gain of relearning, AG: relearning +48.0 points, +40.0 to +55.0. AG is a mean."
        in because
    )
    assert any("Brought back more than 5 points" in line for line in because)


@pytest.mark.parametrize(("gap", "beside"), [
    (0.1, "; +10.0 points, +7.0 to +13.0 beside a model that never knew (not tested: no control)"),
    (None, ""),
])  # fmt: skip
def test_membership_brings_nothing_back(gap, beside, attacked, report_of):
    row = cell(0.66, group="membership", gap=gap) | {"measure": "AUC of the best score"}
    because = report_of(attacked(membership=row)).verdict.because
    assert f"membership: 66.0 %{beside}. AUC of the best score." in because
    assert not any("Brought back" in line or "Attacks run" in line for line in because)
