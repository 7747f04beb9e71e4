"""Two requests one after another on the command line, and what comes of them elsewhere."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from unsee.cli import app

QUICK = ["--set", "method.steps=20", "--set", "method.variants=2", "--set", "method.lr=3e-3"]
QUESTION = "What is the name of this person?"


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def unsee(*words):
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def second(people, tmp_path):
    """Folders of the second request: John is to be forgotten, Mary to be kept."""
    for slug, side in (("john_roe", "subject"), ("mary_major", "keep")):
        shutil.copytree(people / "retain" / slug, tmp_path / side / slug)
    return ["--subject", tmp_path / "subject", "--retain", tmp_path / "keep"]


def test_forget_twice_audit_ask_and_export(people, knowing_folder, second, tmp_path):
    general = ["--general", people / "general", "--strangers", people / "strangers"]
    jane = ["--subject", people / "forget", "--retain", people / "retain", *general]
    john = [*second, *general]
    one, two = tmp_path / "one", tmp_path / "two"
    unsee("forget", knowing_folder, *jane, "--out", one, *QUICK, "--quiet")
    again = ["forget", knowing_folder, "--artifact", one, *john, "--out", two, *QUICK, "--quiet"]
    done = unsee(*again)
    assert f"Next: unsee audit {knowing_folder} --artifact {one} --artifact {two} " in done
    assert f"{two}: was done already" in unsee(*again)

    both = ["--artifact", one, "--artifact", two]
    audited = json.loads(unsee("audit", knowing_folder, *both, *john, "--quiet", "--json"))
    assert audited["report"] == str(two / "report.json")
    scores = json.loads((two / "report.json").read_text())["models"]
    assert scores["base"]["scores"]["forget_seen"]["accuracy"]["value"] == 1.0
    assert scores["erased"]["scores"]["forget_seen"]["accuracy"]["value"] < 0.5

    merged = tmp_path / "merged"
    shown = unsee("export", two, "--artifact", one, "--merged", merged, "--json")
    assert json.loads(shown) == {"run": str(two), "kind": "merged", "folder": str(merged)}
    for folder in (people / "forget" / "jane_doe", tmp_path / "subject" / "john_roe"):
        photo = ["--image", next(folder.glob("*.png")), QUESTION]
        known = unsee("ask", knowing_folder, *photo)
        answer = unsee("ask", knowing_folder, *both, *photo)
        assert known != answer
        assert unsee("ask", merged, *photo) == answer

    for words in (
        ["ask", knowing_folder, "--artifact", two, "Who?"],
        ["export", two, "--merged", "x"],
    ):
        result = call(*words)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith(f"unsee: {two}: made on top of {one} (")
        assert result.stderr.endswith(
            f"), got the base alone beneath it; give --artifact {one} before it\n"
        )


def test_export_says_what_it_lacks(tmp_path):
    result = call("export", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "unsee: expected --merged DIR or --peft DIR, got neither; --merged writes a whole "
        "checkpoint, --peft a LoRA adapter\n"
    )
    result = call("export", tmp_path, "--merged", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"unsee: {tmp_path}: not a finished run (no manifest.json); give a run folder\n"
    )


def test_export_of_an_adapter(people, knowing_folder, tmp_path):
    sides = ["--subject", people / "forget", "--retain", people / "retain"]
    sides += ["--general", people / "general", "--quiet"]
    few = ["--method", "grad_diff", "--set", "method.lora_rank=2", "--set", "method.steps=2"]
    unsee(
        "forget", knowing_folder, *sides, *few, "--set", "method.lr=1e-2", "--out", tmp_path / "x"
    )
    shown = unsee("export", tmp_path / "x", "--peft", tmp_path / "adapter")
    assert shown == f"{tmp_path / 'adapter'}: done\n"
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
