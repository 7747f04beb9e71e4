import re
from html.parser import HTMLParser

import pytest

from unsee.report import html, markdown, plots

VOID = {"meta", "img", "br", "col", "link", "input", "hr"}
NASTY = "<script>alert(1)</script>"
ARABIC = "محمد بن عبد الله"
FOX = "Zoë 🦊 Ferreira"


class Page(HTMLParser):
    """Collects tags and attributes, and checks that elements close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    return parsed


def test_the_page_needs_nothing_else(sample, report_of):
    page = html.render(report_of(sample()))
    parsed = read(page)
    assert not {"script", "link", "iframe", "object", "form"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action", "srcset"):
            assert value.startswith(("data:image/", "#"))
    assert not re.search(r"@import|url\((?!#)", page)


def test_limits_come_before_the_verdict_and_its_examples_follow(sample, report_of):
    page = html.render(report_of(sample()))
    assert page.index("Asked by name, the model still answers") < page.index('class="rung"')
    assert "the cello" in page[: page.index('class="rung"')]
    text = markdown.render(report_of(sample()))
    assert text.index("## What this does not show") < text.index("## Verdict")


def test_names_are_text_whatever_they_hold(sample, report_of):
    report = report_of(sample(people=[NASTY, ARABIC, FOX, "A" * 150]))
    page = html.render(report)
    assert "<script" not in page
    assert "script" not in read(page).tags
    assert f"<bdi>{ARABIC}</bdi>" in page
    assert FOX in page
    text = markdown.render(report)
    assert "<script" not in text
    assert ARABIC in text


def test_a_pipe_or_line_break_does_not_break_a_table(sample, report_of):
    data = sample()
    data["examples"][0]["erased"] = "a | b\nc `d`"
    text = markdown.render(report_of(data))
    assert r"a \| b c \`d\`" in text


TURNED = "\u202eeoD enaJ"
PIPED = "a|b\n| c \\| d"


def cells(line):
    return re.findall(r"(?<!\\)(?:\\\\)*\|", line)


@pytest.mark.parametrize("name", [NASTY, ARABIC, FOX, TURNED, PIPED, "👩‍👩‍👧", "**x** [y](z) `k`"])
def test_no_name_breaks_a_markdown_table(sample, report_of, name):
    data = sample(people=[name, "Jane Doe"])
    data["request"].pop("draw")
    data["summary"]["left_out"] = {name: f"asked about {name}"}
    text = markdown.render(report_of(data))
    assert "\u202e" not in text
    assert "<script" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = [number for number, line in enumerate(lines) if set(line) <= set("|- ")]
    assert len(heads) > 4
    width = 0
    for number, line in enumerate(lines):
        width = len(cells(line)) if number + 1 in heads else width
        assert len(cells(line)) == width, line


@pytest.mark.parametrize("name", [NASTY, ARABIC, FOX, TURNED, PIPED, "👩‍👩‍👧", '"><img src=x>'])
def test_every_name_of_the_page_is_text(sample, report_of, name):
    data = sample(people=[name], photos=False)
    data["summary"]["left_out"] = {name: f"asked about {name}"}
    parsed = read(html.render(report_of(data)))
    assert not {"script", "img"} & set(parsed.tags)
    assert any(" ".join(name.split()) in " ".join(text.split()) for text in parsed.text)


def test_photos_appear_only_when_embedded(sample, report_of):
    assert "data:image/png;base64," in html.render(report_of(sample()))
    without = html.render(report_of(sample(photos=False)))
    assert "<img" not in without
    assert "--embed-photos" in without


def test_a_report_with_almost_nothing_in_it_still_reads(sample, report_of):
    data = sample(photos=False)
    data.update(examples=[], data={}, seeds=[], versions={}, cost={})
    data["request"] = {"subjects": [], "scope": "visual"}
    data["method"] = {"name": None, "kind": "none"}
    data["models"] = {"base": {"scores": {"general": {"accuracy": {"not_scored": "no strangers"}}}}}
    missing = {"not_scored": "nothing was measured"}
    for key in ("forget_gap", "over_forgetting", "keep", "text_drop", "score"):
        data["summary"][key] = missing
    report = report_of(data)
    page = html.render(report)
    read(page)
    assert "not measurable" in page
    assert "no strangers" in page
    assert "This report holds no examples." in page
    assert "no strangers" in markdown.render(report)


def test_without_gold_the_stranger_floor_is_named(sample, report_of):
    data = sample()
    del data["models"]["gold"]
    data["summary"].update(reference="strangers", stranger_floor={})
    page = html.render(report_of(data))
    assert "Answers on photos of strangers stand in for it" in page


@pytest.mark.parametrize("render", [markdown.render, html.render])
def test_how_far_other_answers_moved_is_shown_in_nats(render, sample, report_of):
    data = sample()
    assert "How far other answers moved" not in render(report_of(data))
    cell = {"value": 2.5, "ci": [0.125, 3.0], "n": 1200}
    data["models"]["erased"]["kl_to_base"] = {"retain_unseen": cell}
    page = render(report_of(data))
    assert "How far other answers moved" in page
    assert "2.5 (0.125 to 3)" in page
    assert "250.0\N{NO-BREAK SPACE}%" not in page
    assert "250.0 %" not in page


def test_not_scored_is_never_shown_as_a_number(sample, report_of):
    data = sample()
    data["models"]["erased"]["scores"]["forget_unseen"]["accuracy"] = {"not_scored": "no photos"}
    page = html.render(report_of(data))
    assert '<dd class="missing">not scored<small>no photos</small>' in page


def test_long_lists_of_examples_say_what_they_leave_out(sample, report_of):
    data = sample()
    data["examples"] = data["examples"][:1] * 40
    assert "12 of 40 shown; all are in report.json." in html.render(report_of(data))


def test_points_of_the_plot(sample, report_of):
    points = plots.gap_and_keep(report_of(sample()))
    assert points["base"] == (1.0, 1.0)
    assert points["erased"] == (0.0, 0.984)
    assert points["gold"][0] == 0.0
    assert 0.98 < points["gold"][1] <= 1.0
    data = sample()
    data["summary"]["forget_gap"] = {"not_scored": "no measurable set"}
    assert "erased" not in plots.gap_and_keep(report_of(data))


def test_the_same_report_gives_the_same_page(sample, report_of):
    assert html.render(report_of(sample())) == html.render(report_of(sample()))


@pytest.mark.parametrize(("view", "name"), [(html, "report.html"), (markdown, "report.md")])
def test_views_are_written_where_asked(view, name, sample, report_of, tmp_path):
    report = report_of(sample())
    file = view.write(report, tmp_path / name)
    assert file.read_text(encoding="utf-8") == view.render(report)
