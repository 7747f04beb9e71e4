"""The page of a comparison, drawn from the committed table."""

import json
from copy import deepcopy
from pathlib import Path

import pytest

from unsee.report.comparison import html, markdown

RESULT = Path(__file__).parents[3] / "docs/results/world.json"


@pytest.fixture(scope="module")
def table():
    return json.loads(RESULT.read_text(encoding="utf-8"))


def test_the_committed_page_is_what_the_json_says(table):
    assert markdown(table) == RESULT.with_suffix(".md").read_text(encoding="utf-8")


def test_a_page_says_what_controls_cannot_keep(table):
    assert "`retrain` never knew, and cannot keep what it never had (`forget_text`)" in markdown(
        table
    )
    assert "retrain never knew, and cannot keep what it never had (forget_text)" in html(table)
    kept = deepcopy(table)
    kept["gold"]["forget_text"] = table["base"]["forget_text"]
    assert "never knew, and cannot" not in markdown(kept)


def test_what_was_not_scored_is_left_out_of_what_a_control_leaves(table):
    unscored = deepcopy(table)
    unscored["base"]["forget_seen"]["accuracy"] = {"not_scored": "no open questions"}
    left = table["base"]["forget_unseen"]["accuracy"]["value"]
    assert f"base's again, {100 * left:.1f} % of `forget_unseen`." in markdown(unscored)
