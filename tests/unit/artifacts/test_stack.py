"""One run on top of another: order, what is missing, and taking the last off again."""

import json
import re
import shutil

import pytest
import torch

from unsee.artifacts import (
    apply_stack,
    apply_weights,
    load_manifest,
    read_stack,
    run_fingerprint,
    save_weights,
    take_canary,
)
from unsee.errors import ArtifactError
from unsee.models.load import load

FIELDS = {"method": "vkd", "settings": {}, "seeds": [0], "request": {}}


def made(folder, vlm, part, by):
    """A run that moves one part of the model as it is now; the model keeps the change."""
    canary = take_canary(vlm)
    names = vlm.layout.parameter_names(vlm.model, [part])
    parameters = dict(vlm.model.named_parameters())
    with torch.no_grad():
        for name in names:
            parameters[name] += by
    save_weights(folder, vlm, names, FIELDS, canary)
    return folder


@pytest.fixture(scope="module")
def stacked(tiny_folder, tmp_path_factory):
    """Run `two` on top of `one`, both of the projector, and `other` on the base alone."""
    home = tmp_path_factory.mktemp("stacked")
    made(home / "one", load(tiny_folder, device="cpu"), "projector", 0.05)
    vlm = load(tiny_folder, device="cpu")
    apply_weights(vlm, home / "one")
    made(home / "two", vlm, "projector", 0.03)
    made(home / "other", load(tiny_folder, device="cpu"), "vision", 0.02)
    return home


@pytest.fixture
def base(tiny_folder):
    return load(tiny_folder, device="cpu")


def weights_of(vlm):
    return {name: value.clone() for name, value in vlm.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_on_top_tells_what_it_was_made_on(stacked):
    one, two = load_manifest(stacked / "one"), load_manifest(stacked / "two")
    assert one["stack"] == []
    assert two["stack"] == [{"fingerprint": run_fingerprint(one), "folder": str(stacked / "one")}]
    assert two["base_fingerprint"] == one["base_fingerprint"]


def test_runs_are_put_on_in_their_order_and_the_model_knows(stacked, base):
    before = weights_of(base)
    apply_stack(base, [stacked / "one", stacked / "two"])
    name = "model.multi_modal_projector.linear_1.weight"
    assert torch.equal(weights_of(base)[name], before[name] + 0.05 + 0.03)
    assert [run.folder for run in base.stack] == [str(stacked / "one"), str(stacked / "two")]
    assert base.identity == "-".join(
        [base.fingerprint, *(run_fingerprint(load_manifest(stacked / n)) for n in ("one", "two"))]
    )


def test_without_the_last_the_model_is_that_of_the_first_bit_for_bit(stacked, base, tiny_folder):
    apply_stack(base, [stacked / "one"])
    first = weights_of(base)
    fresh = load(tiny_folder, device="cpu")
    parameters = fresh.layout.parameter_names(fresh.model, ["projector"])
    state = weights_of(fresh)
    assert same({name: state[name] + 0.05 for name in parameters}, first)
    rest = set(state) - set(parameters)
    assert same({name: state[name] for name in rest}, first)


def test_a_missing_run_is_named_with_how_to_give_it(stacked, base):
    before = weights_of(base)
    one = stacked / "one"
    message = (
        f"{stacked / 'two'}: made on top of {one} ({run_fingerprint(load_manifest(one))}), got the "
        f"base alone beneath it; give --artifact {one} before it"
    )
    for refused in (apply_weights, lambda vlm, run: apply_stack(vlm, [run])):
        with pytest.raises(ArtifactError, match=f"^{re.escape(message)}$"):
            refused(base, stacked / "two")
    assert same(before, weights_of(base))
    assert base.stack == ()


@pytest.mark.parametrize(
    ("order", "culprit"),
    [
        (["two", "one"], "two"),
        (["one", "one"], "one"),
        (["one", "other"], "other"),
        (["other", "two"], "two"),
        (["one", "two", "two"], "two"),
    ],
)
def test_another_order_is_refused_before_the_model_is_touched(stacked, base, order, culprit):
    before = weights_of(base)
    runs = [stacked / name for name in order]
    for refused in (read_stack, apply_stack):
        with pytest.raises(ArtifactError, match=f"^{stacked / culprit}: made on top of "):
            refused(base, runs)
    assert same(before, weights_of(base))
    assert base.stack == ()


def test_a_run_of_the_base_alone_says_what_is_too_many(stacked, base):
    with pytest.raises(
        ArtifactError, match=r"of the base alone, got .*; leave those out, or forget"
    ):
        apply_stack(base, [stacked / "one", stacked / "other"])


def test_the_run_beneath_made_again_is_another_run(stacked, base, tmp_path, tiny_folder):
    again = made(tmp_path / "one", load(tiny_folder, device="cpu"), "projector", 0.06)
    with pytest.raises(ArtifactError, match=f"got {again} .* beneath it; give --artifact "):
        apply_stack(base, [again, stacked / "two"])


def test_what_was_changed_beneath_is_found_by_the_canary(stacked, base):
    """Though the model's stack says otherwise."""
    apply_weights(base, stacked / "one")
    with torch.no_grad():
        base.model.get_parameter("model.multi_modal_projector.linear_1.weight").add_(0.05)
    before = weights_of(base)
    with pytest.raises(ArtifactError, match=r"the model is not what .*one \(\w+\) left; load it"):
        apply_weights(base, stacked / "two")
    assert same(before, weights_of(base))
    assert len(base.stack) == 1


def test_a_manifest_whose_stack_was_cut_is_found_by_the_canary(stacked, base, tmp_path):
    run = tmp_path / "two"
    shutil.copytree(stacked / "two", run)
    manifest = json.loads((run / "manifest.json").read_text()) | {"stack": []}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="the model is not the base as it was opened"):
        apply_weights(base, run)


def test_runs_of_before_stacks_are_on_the_base_alone(stacked, base, tmp_path):
    run = tmp_path / "one"
    shutil.copytree(stacked / "one", run)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["stack"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    apply_weights(base, run)
    assert len(base.stack) == 1
