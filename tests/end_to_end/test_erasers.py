"""An eraser from the command line: fitted, asked under, audited, refused."""

import json

import pytest
from typer.testing import CliRunner

from unsee.cli import app


def unsee(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words):
    result = unsee(*words)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def sides(people):
    """Options of a request."""
    options = ["--subject", people / "forget", "--retain", people / "retain"]
    return [*options, "--general", people / "general", "--strangers", people / "strangers"]


@pytest.fixture
def quick():
    """Options of an eraser that such a small model takes."""
    settings = ("direction=subject", "variants=2", "false_fire=0.05", "layers=[1,2]", "ridge=0.01")
    return ["--method", "mllmeraser", *(w for s in settings for w in ("--set", f"method.{s}"))]


def test_forget_ask_and_audit_at_test_time(people, knowing_folder, sides, quick, tmp_path):
    out = tmp_path / "run"
    fitted = done("forget", knowing_folder, *sides, "--out", out, *quick, "--quiet", "--json")
    assert json.loads(fitted.stdout)["runs"] == [str(out)]
    names = {path.name for path in out.iterdir()}
    assert names == {
        "answers.jsonl",
        "manifest.json",
        "eraser.safetensors",
        "canary.safetensors",
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "eraser"
    assert manifest["method"]["name"] == "mllmeraser"
    assert manifest["eraser"]["subjects"] == ["Jane Doe"]
    assert manifest["cost"]["trained_parameters"] == 0
    again = done("forget", knowing_folder, *sides, "--out", out, *quick, "--quiet")
    assert f"{out}: was done already" in again.stdout

    photo = next((people / "forget" / "jane_doe").glob("*.png"))
    question = "What is the name of this person?"
    asked = ["ask", knowing_folder, "--image", photo, question]
    assert done(*asked).stdout == "Jane Doe\n"
    assert done(*asked, "--artifact", out).stdout != "Jane Doe\n"
    assert done(*asked).stdout == "Jane Doe\n"

    done("audit", knowing_folder, "--artifact", out, *sides, "--quiet")
    report = json.loads((out / "report.json").read_text())
    assert report["method"]["kind"] == "eraser"
    assert report["data"]["text_logits_bit_identical"]["value"] is True
    assert sum(report["data"]["changed_tensors"].values()) == 0
    scores = report["models"]
    assert scores["base"]["scores"]["forget_seen"]["accuracy"]["value"] == 1.0
    assert scores["erased"]["scores"]["forget_seen"]["accuracy"]["value"] < 0.5

    # Over a run of changed weights, in any order; and it is no ground for another run.
    trained = tmp_path / "trained"
    few = ["--set", "method.steps=2", "--set", "method.variants=2"]
    done("forget", knowing_folder, *sides, "--out", trained, *few, "--quiet")
    for runs in ([trained, out], [out, trained]):
        over = [word for run in runs for word in ("--artifact", run)]
        assert done(*asked, *over).stdout != "Jane Doe\n"
    no_file = "which acts at test time and has no merged checkpoint and no adapter; give it to ask"
    for words, match in (
        (
            ["forget", knowing_folder, *sides, "--artifact", out, "--out", tmp_path / "next", *few],
            "expected weights, got an eraser, which changes none",
        ),
        (["export", out, "--merged", tmp_path / "next"], no_file),
        (["export", out, "--peft", tmp_path / "next"], no_file),
        (["export", trained, "--artifact", out, "--merged", tmp_path / "next"], no_file),
    ):
        refused = unsee(*words)
        assert refused.exit_code == 2
        assert match in refused.stderr
        assert refused.stderr.strip().count("\n") == 0
        assert not (tmp_path / "next").exists()

    damaged = out / "eraser.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    refused = unsee(*asked, "--artifact", out)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "eraser.safetensors has" in refused.stderr


def test_scope_both_suppresses_questions_by_name_too(knowing_folder, sides, quick, tmp_path):
    """The gate for prompts without a photo has its own row of everything; other people stay."""
    out = tmp_path / "run"
    done("forget", knowing_folder, *sides, "--scope", "both", "--out", out, *quick, "--quiet")
    eraser = json.loads((out / "manifest.json").read_text())["eraser"]
    assert eraser["plan"]["scope"] == "both"
    assert set(eraser["notes"][0]) == {"photo", "text"}

    for name, city in (("Jane Doe", "Oslo"), ("John Roe", "Lima")):
        asked = ["ask", knowing_folder, f"Where was {name} born?"]
        assert done(*asked).stdout == f"{city}\n"
        under = done(*asked, "--artifact", out).stdout
        assert (under == f"{city}\n") == (name == "John Roe")

    # The audit takes the scope from the run.
    done("audit", knowing_folder, "--artifact", out, *sides, "--quiet")
    report = json.loads((out / "report.json").read_text())
    assert report["request"]["scope"] == "both"
    assert report["data"]["text_logits_bit_identical"]["value"] is False
    base, erased = (report["models"][name]["scores"] for name in ("base", "erased"))
    assert base["forget_text"]["accuracy"]["value"] == 1.0
    assert erased["forget_text"]["accuracy"]["value"] == 0.0
    assert erased["forget_seen"]["accuracy"]["value"] < 0.5
    page = (out / "report.md").read_text()
    assert "by name" in page
    assert "Only recognition in photos was to be forgotten" not in page


def test_an_eraser_s_mistakes_are_one_line(knowing_folder, sides, tmp_path):
    sides += ["--out", tmp_path / "run", "--quiet"]
    for words, match in (
        (
            ["--method", "mllmerasr"],
            "unknown method 'mllmerasr'; did you mean 'mllmeraser'?",
        ),
        (
            ["--method", "mllmeraser", "--set", "method.layers=[9]"],
            "method.layers: expected numbers from 0 to 2, got 9",
        ),
        (
            ["--method", "mllmeraser", "--set", "method.strenght=2"],
            "method mllmeraser: strenght: unknown setting; did you mean 'strength'?",
        ),
    ):
        refused = unsee("forget", knowing_folder, *sides, *words)
        assert refused.exit_code == 2
        assert match in refused.stderr
        assert refused.stderr.strip().count("\n") == 0
        assert not (tmp_path / "run" / "manifest.json").exists()


def test_list_names_the_erasers():
    shown = json.loads(done("list", "erasers", "--json").stdout)
    assert shown["mllmeraser"]["settings"]["gate"] == "calibrated"
    assert shown["mllmeraser"]["settings"]["task_strengths"] == {}
    assert "mllmeraser: Steers prompts" in done("list", "erasers").stdout


def test_an_audit_under_attacks_names_those_that_broke_the_eraser(
    people, knowing_folder, tiny_folder, sides, quick, tmp_path
):
    """Taken off, everything is there again; a photo that keeps the gate silent brings it too."""
    out = tmp_path / "run"
    done("forget", knowing_folder, *sides, "--out", out, *quick, "--quiet")
    attacks = ["--attacks", "removal,gate_images", "--gold", tiny_folder]
    done("audit", knowing_folder, "--artifact", out, *sides, *attacks, "--quiet")
    report = json.loads((out / "report.json").read_text())
    found = report["models"]["erased"]["attacks"]
    assert found["removal"]["value"] == report["models"]["base"]["attacks"]["removal"]["plain"]
    assert found["removal"]["above_gold"]["value"] > 0.5
    assert set(found["gate_images"]["tries"]) == {"4 of 255", "8 of 255", "16 of 255"}
    asked = [report["models"][name]["attacks"]["gate_images"]["n"] for name in ("base", "gold")]
    assert asked == [found["gate_images"]["n"]] * 2
    page = (out / "report.md").read_text()
    assert report["verdict"]["rung"] in ("suppressed", "not forgotten")
    assert "Brought back more than 5 points above a model that never knew: removal (" in page
    # The base that was attacked beside it is as it was.
    photo = next((people / "forget" / "jane_doe").glob("*.png"))
    asked = done("ask", knowing_folder, "--image", photo, "What is the name of this person?")
    assert asked.stdout == "Jane Doe\n"
