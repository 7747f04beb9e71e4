import io
import itertools
import json
import os
import re
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from unsee.cli import app
from unsee.cli.session import command_line, print_anything, progress, verb
from unsee.errors import DataError

HEAVY = ("torch", "transformers", "numpy", "PIL")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["forget", "--help"]])
def test_help_and_version_load_nothing_heavy(words):
    script = (
        "import sys\n"
        f"sys.argv = ['unsee', *{words!r}]\n"
        "from unsee.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["demo"],
        ["forget"],
        ["audit"],
        ["ask"],
        ["verify"],
        ["export"],
        ["list"],
        ["world"],
        ["world", "make"],
    ],
)
def test_every_help_text_ends_in_an_example(words):
    shown = CliRunner().invoke(app, [*words, "--help"]).output
    about = shown.split("Options:")[0].split("Arguments:")[0]
    assert about.strip().split("\n\n")[-1].strip().startswith("Example: unsee ")


@verb
def fails(debug: bool = False):
    raise DataError("two\nlines")


@verb
def stopped(debug: bool = False):
    raise KeyboardInterrupt


@verb
def full(debug: bool = False):
    raise OSError(28, "No space left on device", "runs/x/job.json")


@verb
def absent(debug: bool = False):
    raise FileNotFoundError(2, "No such file or directory", "runs/x")


def run(function, *words):
    single = typer.Typer(pretty_exceptions_enable=False)
    single.command()(function)
    return CliRunner().invoke(single, list(words))


def test_a_mistake_is_one_line_and_exits_with_2():
    result = run(fails)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "unsee: two lines\n"


@verb
def fails_twice(debug: bool = False):
    raise DataError("r.jsonl:1: a", "r.jsonl:3: b\nc")


def test_several_faults_are_a_line_each():
    assert run(fails_twice).stderr == "unsee: r.jsonl:1: a\n       r.jsonl:3: b c\n"
    assert str(DataError("a", "b")) == "a; b"


def test_debug_adds_the_traceback():
    result = run(fails, "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("unsee: two lines\n")


def test_what_the_system_refuses_is_one_line_with_the_file():
    result = run(full)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "unsee: runs/x/job.json: cannot be read or written (No space left on device); what is done "
        "is kept; free some space or allow it, or give another folder\n"
    )
    assert "Traceback" in run(full, "--debug").stderr


def test_a_bug_of_ours_keeps_its_traceback():
    assert isinstance(run(absent).exception, FileNotFoundError)


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/unsee", "forget", "m", "--out", "runs/a b"])
    result = run(stopped)
    assert result.exit_code == 130
    assert "go on with: unsee forget m --out 'runs/a b'" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "vkdd"], "unknown method 'vkdd'; did you mean 'vkd'?"),
        (
            ["--set", "method.stepz=7"],
            "method vkd: stepz: unknown setting; did you mean 'steps'? (got 7)",
        ),
        (["--set", "fotos=7"], "fotos: unknown setting; did you mean 'photos'? (got 7)"),
        (["--set", "seeds"], "--set 'seeds': expected name=value, such as method.beta=0.2"),
    ],
)
def test_unknown_names_offer_the_nearest(words, message):
    start = ["forget", "world:llava", "--subject", "world:A", "--dry-run"]
    result = CliRunner().invoke(app, [*start, *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"unsee: {message}\n"


def test_everything_missing_is_said_at_once():
    result = CliRunner().invoke(app, ["forget"])
    assert result.exit_code == 2
    assert result.stderr == (
        "unsee: model: missing, give it a value; subject: missing; give --subject, --request or "
        "--dataset\n"
    )


PLAIN = {"PYTHONIOENCODING": "ascii"}
BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "start"),
    [
        ({"LC_ALL": "C"}, b"unsee: people/"),
        (PLAIN, b"unsee: people/"),
        # What Python could not read there, tokenizers and safetensors cannot open either.
        (BARE, b"unsee: subject: expected UTF-8, got 'people/\\udcc3\\udc85se "),
    ],
)
def test_a_terminal_that_knows_only_ascii(environment, start):
    words = ["forget", "m", "--subject", "people/Åse 🦊", "--dry-run"]
    script = "from unsee.cli import main; main()"
    base = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, env=base | environment,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(start)
    assert done.stderr.count(b"\n") == 1


def test_a_name_that_the_terminal_cannot_show_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    print_anything()
    typer.echo("not measurable: Åse 🦊/pet")
    sys.stdout.flush()
    assert raw.getvalue() == b"not measurable: \xc5se \\U0001f98a/pet\n"


def test_a_command_of_undecodable_bytes_can_be_written_down(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["unsee", "ask", "\udcc3\udc85se", "\udcff"])
    assert command_line().encode() == "unsee ask 'Åse' '\ufffd'".encode()


@pytest.mark.parametrize("flag", ["--artifact", "--out", "--retain", "--subject"])
def test_words_that_no_file_could_hold_are_refused_first(flag):
    words = ["audit", "no/such/model", flag, "runs/\udcff"]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"unsee: {flag.strip('-')}: expected UTF-8, got 'runs/\\udcff'; rename it, or set a UTF-8 "
        "locale such as LC_ALL=C.UTF-8\n"
    )


def test_a_clock_that_jumps_back_leaves_progress_and_time_left_as_they_are(monkeypatch, capsys):
    clock = itertools.count(2e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    with progress(quiet=False) as report:
        assert report is not None
        for done in range(1, 5):
            report("training", done, 4)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert not re.search(r"-\d", shown)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attacks", "crp,blur"], "unknown attack 'crp'; did you mean 'crop'?"),
        (
            ["--attacks", ","],
            "--attacks ',': expected all, or names out of blur, collage, colour, ",
        ),
        (["--control", "runs/x"], "--control shows the power of attacks; give --attacks too"),
        (["--budget", "5"], "--budget is for attacks; give --attacks too"),
        (
            ["--attacks", "all", "--budget", "-1"],
            "--budget -1: expected minutes above 0; give more",
        ),
    ],
)
def test_attacks_are_checked_before_a_model_is_opened(words, message):
    result = CliRunner().invoke(app, ["audit", "no/such/model", "--subject", "world:A", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"unsee: {message}")
    assert result.stderr.count("\n") == 1


def test_attacks_are_listed_with_their_settings():
    shown = json.loads(CliRunner().invoke(app, ["list", "attacks", "--json"]).stdout)
    assert shown["crop"]["settings"] == {"share": 0.85}
    assert len(shown) >= 22


def test_list_names_what_there_is():
    shown = json.loads(CliRunner().invoke(app, ["list", "methods", "--json"]).stdout)
    assert {"vkd", "grad_diff"} <= shown.keys()
    assert "lr" in shown["vkd"]["settings"]
    wrong = CliRunner().invoke(app, ["list", "method"])
    assert wrong.exit_code == 2
    assert wrong.stderr == ("unsee: list 'method': nothing of that name; did you mean 'methods'?\n")
