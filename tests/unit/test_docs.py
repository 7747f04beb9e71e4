"""What the pages say can be typed: verbs, flags, files and links."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from unsee.cli import app
from unsee.methods import METHODS
from unsee.report.verdict import RUNGS
from unsee.settings import overrides, resolve

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECIPES = sorted(ROOT.rglob("recipes/*.toml"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def names_of(pages):
    return [str(page.relative_to(ROOT)) for page in pages]


def test_the_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= set(names_of(PAGES))
    assert {"docs/guide.md", "docs/concepts.md"} <= set(names_of(PAGES))


def click_command(words):
    """The command that words after `unsee` lead to, and the words left for it."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no such verb: unsee {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return command, rest


def flags_of(command):
    return {flag for parameter in command.params for flag in parameter.opts} | {"--help"}


def all_flags(command):
    flags = flags_of(command)
    for child in getattr(command, "commands", {}).values():
        flags |= all_flags(child)
    return flags


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """Every `unsee ...` of shell blocks and of code in lines, as words."""
    lines = [
        line.split("  #")[0]
        for block in blocks(text, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"`([^`\n]+)`", prose)
    return [shlex.split(line)[1:] for line in lines if line.startswith("unsee ")]


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_every_command_exists_with_its_flags(page):
    for words in commands(page.read_text(encoding="utf-8")):
        command, rest = click_command(words)
        given = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert given <= flags_of(command), f"unsee {' '.join(words)}"


def test_commands_are_found_at_all():
    guide = commands((ROOT / "docs" / "guide.md").read_text(encoding="utf-8"))
    assert {words[0] for words in guide} == {
        "demo",
        "world",
        "forget",
        "list",
        "audit",
        "ask",
        "export",
        "tune",
        "compare",
        "verify",
    }


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_every_flag_of_the_prose_exists(page):
    text = page.read_text(encoding="utf-8")
    known = all_flags(typer.main.get_command(app))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", prose)
    # The flags of benchmarks are their own.
    ours = [span for span in spans if not span.startswith("python ")]
    assert set(FLAG.findall(" ".join(ours))) <= known


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_every_relative_link_leads_somewhere(page):
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    missing = [link for link in targets if not (page.parent / link.split("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_make_targets_and_recipes_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)", text, re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }
    assert all((ROOT / path).is_file() for path in re.findall(r"recipes/[\w-]+\.toml", text))


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_settings_in_pages_are_settings(page):
    text = page.read_text(encoding="utf-8")
    for method, assignment in re.findall(
        r"(?:--method (\w+) )?--set (method\.[\w.]+=[\w.-]+)", text
    ):
        resolve(METHODS.get(method or "vkd"), overrides([assignment])["method"])


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_python_in_pages_compiles(page):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        compile(block, str(page), "exec")
        for module, name in re.findall(r"^from (unsee[\w.]*) import (\w+)$", block, re.MULTILINE):
            assert hasattr(__import__(module, fromlist=[name]), name)
        for name in re.findall(r"\bunsee\.(\w+)\(", block):
            assert name in __import__("unsee").__all__


def test_the_guide_explains_every_verdict_that_can_be_reached():
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    concepts = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert all(f"| {rung} |" in guide for rung in RUNGS)
    assert all(rung in " ".join(concepts.split()) for rung in RUNGS)


def test_every_recipe_is_valid():
    from unsee.lineup import read_comparison
    from unsee.recipe import read_recipe

    assert len(RECIPES) >= 2
    for path in RECIPES:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        read = read_comparison(path).comparison if "rows" in table else read_recipe(path, {})[0]
        assert table["model"] == read.model
