"""The demo as a user runs it: from a wheel, in some folder, on the real command line."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from html.parser import HTMLParser
from pathlib import Path

import pytest

from unsee.data.world import open_world
from unsee.report.schema import Report
from unsee.report.verdict import RUNGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The `unsee` command of an environment into which a wheel of this tree was installed.

    Our dependencies are lent to it by path, so that nothing is fetched; `unsee` itself is not: an
    editable install does not reach through a path.
    """
    home = tmp_path_factory.mktemp("clean")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", ROOT, "--no-deps", "--no-build-isolation", "--wheel-dir", home]
    subprocess.run(wheel, check=True)
    venv.create(home / "venv", with_pip=False)
    python = home / "venv" / "bin" / "python"
    (built,) = home.glob("*.whl")
    offline = ["install", "--no-deps", "--no-index", built]
    subprocess.run([*pip, "--python", python, *offline], check=True)
    (packages,) = (home / "venv" / "lib").glob("python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "venv" / "bin" / "unsee"


@pytest.fixture(scope="module")
def demo(installed, cache, tmp_path_factory):
    """The demo, run once from a wheel and in a folder that is not the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        [installed, "demo", "--quiet"],
        cwd=folder,
        env={**os.environ, "UNSEE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def demo_report(demo):
    return report_in(demo[0] / "runs" / "demo")


@pytest.fixture(scope="module")
def eraser_report(demo):
    return report_in(demo[0] / "runs" / "demo-mllmeraser")


def report_in(folder):
    text = (folder / "report.json").read_text(encoding="utf-8")
    return Report.model_validate(json.loads(text))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_states_its_verdict_and_names_the_report(demo, demo_report):
    printed = demo[1]
    assert printed.splitlines()[-1] == "Report: runs/demo/report.html"
    verdict = demo_report.verdict
    assert verdict.rung in RUNGS
    assert f"Verdict: {verdict.rung}" in printed
    assert verdict.because
    assert verdict.not_run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_forgets_and_keeps(demo_report):
    base, erased = demo_report.model("base"), demo_report.model("erased")
    for name in ("forget_seen", "forget_unseen"):
        before, after = base.cell(name), erased.cell(name)
        assert before.value > 0.9
        assert after.value < 0.3 * before.value
    for name in ("retain_unseen", "forget_visible", "general", "refusal"):
        assert erased.cell(name).value > base.cell(name).value - 0.15
    # The language model is frozen: asked by name it answers as before.
    assert erased.cell("forget_text").value == base.cell("forget_text").value
    assert demo_report.summary.reference == "gold"
    assert demo_report.request.draw == "A"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_s_second_row_is_the_eraser_s(demo, demo_report, eraser_report):
    folder, report = demo[0] / "runs" / "demo-mllmeraser", eraser_report
    rows = [line.split()[0] for line in demo[1].splitlines() if line.split()]
    assert rows.index("vkd") + 1 == rows.index("mllmeraser")
    assert "Report of the eraser: runs/demo-mllmeraser/report.html" in demo[1]
    assert report.method.kind == "eraser"
    # One request; what base and gold said is not asked again.
    asked = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len({row["model"] for row in asked}) == 1
    for name in ("base", "gold"):
        assert report.model(name) == demo_report.model(name)
    base, erased = report.model("base"), report.model("erased")
    for name in ("forget_seen", "forget_unseen"):
        assert erased.cell(name).value < 0.3 * base.cell(name).value
    assert erased.cell("forget_text").value == base.cell("forget_text").value
    assert (folder / "report.html").is_file()


class Page(HTMLParser):
    """Collects open elements that were never closed, and what the page would load."""

    VOID = frozenset("meta link br img hr input source path line rect circle col".split())

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href") and value is not None
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_of_the_demo_is_whole_and_loads_nothing(demo, demo_report):
    page = Page()
    text = (demo[0] / "runs" / "demo" / "report.html").read_text(encoding="utf-8")
    page.feed(text)
    page.close()
    assert page.open == []
    assert not any(value.split(":")[0] in ("http", "https", "file") for value in page.loads)
    assert demo_report.verdict.rung in text.lower()
    # The drawn people are nobody: their photos are in the page.
    assert any(value.startswith("data:image/") for value in page.loads)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_again_starts_from_what_is_done(unsee, demo, cache):
    done = unsee("demo", "--json", cwd=demo[0], cache=cache)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["verdict"]["rung"] in RUNGS
    assert printed["report"] == "runs/demo/report.json"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_erased_model_no_longer_names_them_on_the_command_line(
    unsee, demo, cache, world_folder
):
    world = open_world(world_folder)
    person = next(p for p in world.people if p["role"] == "A")
    photo = world_folder / "unseen" / "report" / person["slug"] / "photo_00.png"
    words = ["world:llava", "--image", str(photo), "Tell me the name of this person."]
    before = unsee("ask", *words, cwd=demo[0], cache=cache)
    after = unsee("ask", *words, "--artifact", "runs/demo", cwd=demo[0], cache=cache)
    assert (before.returncode, after.returncode) == (0, 0), before.stderr + after.stderr
    assert before.stdout.strip() == person["name"]
    assert after.stdout.strip() != person["name"]
