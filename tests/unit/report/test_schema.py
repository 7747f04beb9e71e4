import copy
import json

import pytest
from pydantic import ValidationError

from unsee.data.records import SETS
from unsee.errors import ArtifactError
from unsee.report import load, parse, save, wording
from unsee.report.schema import NotScored, Score


def test_a_report_survives_writing_and_reading(sample, report_of, tmp_path):
    report = report_of(sample())
    file = save(report, tmp_path)
    assert file == tmp_path / "report.json"
    assert load(tmp_path) == load(file) == report


def test_keys_beyond_the_fixed_ones_survive_where_the_format_is_open(sample, report_of, tmp_path):
    data = sample()
    data["request"]["retain"] = "people/colleagues"
    save(report_of(data), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["request"]["retain"]


def test_a_newer_format_is_refused(sample):
    with pytest.raises(ArtifactError, match=r"x\.json: expected report format 1 or older, got 2; "):
        parse({**sample(), "format": 2}, where="x.json")


def test_all_faults_are_named_at_once(sample):
    data = copy.deepcopy(sample())
    data["colour"] = "blue"
    data["models"]["base"]["scores"]["general"]["accuracy"]["value"] = 1.5
    with pytest.raises(ArtifactError) as error:
        parse(data, where="x.json")
    assert "colour: Extra inputs" in str(error.value)
    assert "models.base.scores.general.accuracy.measured.value" in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "found no such file"),
        ("{", "expected JSON"),
        ("[]", "whole number under 'format'"),
    ],
)
def test_what_is_no_report_is_one_clear_line(content, said, tmp_path):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(ArtifactError, match=said) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_rounding_is_forgiven_and_more_is_not():
    assert Score(value=1 + 1e-12, ci=(0.5, 1 + 1e-12), n=1).value == 1
    with pytest.raises(ValidationError):
        Score(value=1.01, ci=(0.5, 1), n=1)
    with pytest.raises(ValidationError, match="expected \\[low, high\\]"):
        Score(value=0.5, ci=(0.6, 0.4), n=1)


@pytest.mark.parametrize("photo", ["https://example.org/a.png", "data:text/html;base64,AAAA"])
def test_a_photo_is_embedded_or_absent(photo, sample):
    data = sample()
    data["examples"][0]["photo"] = photo
    with pytest.raises(ArtifactError, match=r"examples\.0\.photo"):
        parse(data, where="x.json")


def test_a_missing_score_has_a_reason(sample, report_of):
    cell = report_of(sample()).model("gold").cell("bystander", "bleu")
    assert isinstance(cell, NotScored)
    assert "not part of this audit" in cell.not_scored


def test_every_set_has_words():
    assert tuple(wording.SETS) == SETS


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.0001, "< 0.1 %"), (0.9999, "> 99.9 %"), (0.0833, "8.3 %")],
)
def test_only_none_and_all_read_as_0_and_100(share, written):
    assert wording.percent(share) == written


def test_lists_of_people_stay_short():
    assert wording.people(["A"]) == "A"
    assert wording.people(["A", "B", "C"]) == "A, B and C"
    assert wording.people(list("ABCDEFG")) == "A, B, C, D and 3 more"
    assert len(wording.people(["A" * 200])) < 60
