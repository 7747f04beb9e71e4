"""The verbs one after another on a tiny model and folders of photos."""

import json

from typer.testing import CliRunner

from unsee.cli import app


def unsee(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_forget_audit_and_ask(people, knowing_folder, tmp_path):
    sides = ["--subject", people / "forget", "--retain", people / "retain"]
    sides += ["--general", people / "general", "--strangers", people / "strangers"]
    out = tmp_path / "run"
    quick = ["--set", "method.steps=30", "--set", "method.variants=2", "--set", "method.lr=3e-3"]
    done = unsee("forget", knowing_folder, *sides, "--out", out, *quick, "--quiet", "--json")
    assert json.loads(done.stdout) == {
        "runs": [str(out)],
        "subjects": ["Jane Doe"],
        "not_measurable": {},
        "left_out": {},
    }
    assert done.stderr == ""
    again = unsee("forget", knowing_folder, *sides, "--out", out, *quick, "--quiet")
    assert f"{out}: was done already" in again.stdout
    assert f"Next: unsee audit {knowing_folder} --artifact {out}" in again.stdout

    audited = unsee("audit", knowing_folder, "--artifact", out, *sides, "--quiet", "--json")
    short = json.loads(audited.stdout)
    assert short["report"] == str(out / "report.json")
    assert short["summary"]["reference"] == "strangers"
    report = json.loads((out / "report.json").read_text())
    scores = report["models"]
    assert scores["base"]["scores"]["forget_seen"]["accuracy"]["value"] == 1.0
    assert scores["erased"]["scores"]["forget_seen"]["accuracy"]["value"] < 0.5
    shown = unsee("audit", knowing_folder, "--artifact", out, *sides)
    assert f"Report: {out / 'report.html'}" in shown.stdout

    photo = next((people / "forget" / "jane_doe").glob("*.png"))
    question = "What is the name of this person?"
    before = unsee("ask", knowing_folder, "--image", photo, question)
    assert before.stdout == "Jane Doe\n"
    after = unsee("ask", knowing_folder, "--artifact", out, "--image", photo, question, "--json")
    assert json.loads(after.stdout)["answer"] != "Jane Doe"
