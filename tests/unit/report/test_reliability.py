import json
from importlib.resources import files
from pathlib import Path

import pytest

from unsee.report import html, markdown, reliability, wording

RESULT = Path(__file__).parents[3] / "docs/results/metrics.json"


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(reliability, "reliability", lambda: {"rouge_l": 0.9, "bleu": 0.4})
    for view in (html, markdown):
        monkeypatch.setattr(view, "reliability", lambda: {"bleu": 0.4})


def test_the_most_reliable_come_first_and_the_others_stay_in_order(measured):
    names = ["accuracy", "bleu", "choice_accuracy", "rouge_l"]
    ordered = reliability.most_reliable_first(names)
    assert ordered == ["rouge_l", "bleu", "accuracy", "choice_accuracy"]


def test_reports_are_ordered_by_it_and_say_so(measured, sample, report_of):
    report = report_of(sample())
    order = wording.metric_order(report, "forget_seen")
    assert order[:3] == ["rouge_l", "bleu", "accuracy"]
    for render in (markdown.render, html.render):
        assert reliability.ORDERED in render(report)


def test_the_packaged_table_is_that_of_the_committed_result():
    packaged = json.loads((files("unsee.report") / reliability.FILE_NAME).read_text())
    if not RESULT.exists():
        assert packaged == {}
        return
    rows = json.loads(RESULT.read_text())["rows"]
    assert packaged == {row["metric"]: round(row["reliability"], 3) for row in rows}
    assert set(packaged) <= set(wording.METRICS)
    assert reliability.most_reliable_first(sorted(packaged)) == [row["metric"] for row in rows]
