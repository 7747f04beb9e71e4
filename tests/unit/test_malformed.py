"""Whatever a file holds, a reader gives a fault of the user's or a result, and writes nothing."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from unsee.cli import app
from unsee.data.mllmu import row_records
from unsee.data.people import read_people
from unsee.errors import UnseeError
from unsee.report.storage import load, parse
from unsee.requests import read_rows
from unsee.requests.rows import FIELDS

ODD = ("", " ", "../a.png", "/a.png", "https://x/a.png", "a\0", "\ud800", "\u202ex", "é" * 300)
PLAIN = "Jane a.png forget forget_unseen retain open choice A <script> name".split()
TEXTS = st.sampled_from([*ODD, *PLAIN]) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
DEEP = st.sampled_from(["[" * 5000, '{"a":' * 2000, "9" * 5000, "[" * 900 + "]" * 900])
ROWS = st.dictionaries(st.sampled_from(FIELDS) | TEXTS, VALUES, max_size=6)
LINES = (ROWS | VALUES).map(json.dumps).map(str.encode) | DEEP.map(str.encode) | st.binary()
FILES = st.lists(LINES, max_size=4).map(b"\n".join)


def many(count):
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def listing(folder):
    return sorted((str(path), path.is_dir() or path.read_bytes()) for path in folder.rglob("*"))


def harmless(read, folder):
    before = listing(folder)
    faults = ("",)
    try:
        read()
    except UnseeError as error:
        faults = error.args
    assert faults
    assert all(isinstance(fault, str) for fault in faults)
    assert listing(folder) == before


@pytest.fixture
def home(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    return tmp_path


@many(500)
@given(content=FILES)
def test_requests(home, content):
    (home / "request.jsonl").write_bytes(content)
    harmless(lambda: read_rows(home / "request.jsonl"), home)


@many(250)
@given(profile=LINES, questions=FILES)
def test_people_folders(home, profile, questions):
    (home / "profile.json").write_bytes(profile)
    (home / "questions.jsonl").write_bytes(questions)
    harmless(lambda: read_people(home), home)


@many(150)
@given(content=LINES)
def test_reports(home, content):
    (home / "report.json").write_bytes(content)
    harmless(lambda: load(home), home)


@many(100)
@given(table=st.dictionaries(st.sampled_from(["models", "summary", "request", "cost"]), VALUES))
def test_reports_of_the_right_format(home, table):
    harmless(lambda: parse({"format": 1, **table}, where="r"), home)


COLUMNS = ("ID", "Classification_Task", "Generation_Task", "Mask_Task", "Type", "Question")
TABLES = st.dictionaries(
    st.sampled_from([*COLUMNS, "Options", "Correct_Answer", "Image_Textual_Questions"]), VALUES
)


@many(200)
@given(
    row=st.fixed_dictionaries(
        {name: VALUES | TABLES | st.lists(TABLES, max_size=2) for name in (*COLUMNS[:4], "image")},
        optional={"images": VALUES, "metadata": VALUES | DEEP},
    )
)
def test_rows_of_a_benchmark(home, row):
    harmless(lambda: row_records(row), home)


@pytest.mark.parametrize("verb", ["forget", "audit"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 5000, b'{"subject": "\\ud800", "image": "a.png"}', b"{}"]
)
def test_the_command_says_so_and_exits_with_2(home, content, verb):
    path = home / "request.jsonl"
    path.write_bytes(content)
    before = listing(home)
    words = [verb, "no-model", "--request", str(path), "--out", str(home / "runs")]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith(f"unsee: {path}")
    assert listing(home) == before
