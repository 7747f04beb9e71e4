"""Methods that edit weights without training, from the command line."""

import json

import pytest
import torch
from typer.testing import CliRunner

from unsee.cli import app
from unsee.erasers.storage import under_artifacts

STRONG = {"manu": "method.share=0.1", "kvw": "method.gamma=0.3"}


def unsee(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("name", STRONG)
def test_a_run_of_surgery_applies_and_comes_off_bit_for_bit(
    name, knowing, knowing_folder, people, tmp_path
):
    before = {n: tensor.clone() for n, tensor in knowing.model.state_dict().items()}
    sides = ["--subject", people / "forget", "--retain", people / "retain"]
    sides += ["--general", people / "general", "--quiet", "--out", tmp_path / "run"]
    words = ["forget", knowing_folder, *sides, "--method", name, "--set", STRONG[name]]

    planned = unsee(*words, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert f"method: {name}, into" in planned.stdout
    assert "time and memory: not predicted for methods that train nothing" in planned.stdout
    assert not (tmp_path / "run").exists()
    wrong = unsee(*words, "--dry-run", "--set", "method.parts=['projector']")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("unsee: method.parts: 'projector' has no MLP whose neurons")

    done = unsee(*words)
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"answers.jsonl", "manifest.json", "weights.safetensors", "canary.safetensors"}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["method"]["name"] == name
    assert (manifest["kind"], manifest["cost"]["trained_parameters"]) == ("weights", 0)
    changed = set(manifest["tensors"])
    with under_artifacts(knowing, [tmp_path / "run"]):
        now = knowing.model.state_dict()
        assert {n for n in before if not torch.equal(before[n], now[n])} == changed
    after = knowing.model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert f"{tmp_path / 'run'}: was done already" in unsee(*words).stdout
