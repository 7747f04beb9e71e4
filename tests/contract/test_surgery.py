"""What every registered method that edits weights without training holds to."""

import json
import tomllib
from dataclasses import replace
from typing import Any

import pytest
import torch

from unsee.data.collate import encode
from unsee.erasers.storage import under_artifacts
from unsee.errors import ConfigError, DataError, LayoutError
from unsee.forget import forget
from unsee.losses import cross_entropy
from unsee.method import Surgery
from unsee.methods import METHODS
from unsee.models.load import load
from unsee.models.restore import restored
from unsee.settings import resolve
from unsee.train import may_change

# Settings under which a tiny model that knows seven photos loses more of four of them than of the
# rest; a method that is not named here is tried at its defaults.
FORGETS: dict[str, dict[str, Any]] = {
    "kvw": {"gamma": 1.0},
    "manu": {"share": 0.1},
}
each_surgery = pytest.mark.parametrize(
    "cls",
    [cls for _, cls in METHODS.items() if hasattr(cls, "edit")],
    ids=[name for name, cls in METHODS.items() if hasattr(cls, "edit")],
)


@pytest.fixture
def method(cls):
    name = next(name for name, known in METHODS.items() if known is cls)
    return cls.model_validate(FORGETS.get(name, {}))


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def differing(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def answers_loss(vlm, records):
    batch = encode(vlm, records, answers=True, side="right")
    with torch.no_grad():
        return cross_entropy(vlm.model(**batch.inputs()).logits, batch.labels).item()


def test_there_are_some():
    assert {"kvw", "manu"} <= {name for name, cls in METHODS.items() if isinstance(cls(), Surgery)}


@each_surgery
def test_it_is_settings_with_a_line_for_every_field(cls):
    assert isinstance(cls(), Surgery)
    assert cls.kind == "weights"
    for field in cls.model_fields:
        assert f" {field}: " in cls.__doc__, field


@each_surgery
def test_settings_survive_json_and_toml(cls, method):
    for settings in (cls(), method):
        table = settings.model_dump(mode="json")
        assert resolve(cls, json.loads(json.dumps(table))) == settings
        lines = [f"{k} = {json.dumps(v)}" for k, v in table.items()]
        assert resolve(cls, tomllib.loads("\n".join(lines))) == settings


@each_surgery
def test_an_unknown_setting_is_refused_with_the_nearest_name(cls):
    with pytest.raises(ConfigError, match=r"method: partz: unknown setting; did you mean 'parts'"):
        resolve(cls, {"partz": 3}, where="method")


@each_surgery
def test_it_changes_what_it_names_and_nothing_else(method, knowing_vlm, small_split):
    before = weights(knowing_vlm)
    allowed = may_change(knowing_vlm, method)
    changed = method.edit(knowing_vlm, small_split, seed=0)
    assert changed
    assert differing(before, weights(knowing_vlm)) == set(changed) <= set(allowed)
    assert all(p.grad is None for p in knowing_vlm.model.parameters())
    assert not any(m._forward_pre_hooks for m in knowing_vlm.model.modules())


@each_surgery
def test_same_seed_same_weights(method, tiny_folder, small_split):
    few = method.model_copy(update={"records": 3})
    outcomes = []
    for seed in (5, 5, 6):
        vlm = load(tiny_folder, dtype="float32", device="cpu")
        few.edit(vlm, small_split, seed=seed)
        outcomes.append(weights(vlm))
    first, second, other = outcomes
    assert not differing(first, second)
    assert differing(first, other)


@each_surgery
def test_more_is_lost_of_what_is_to_be_forgotten(method, knowing_vlm, small_split):
    keep = (*small_split.retain, *small_split.general)
    before = [answers_loss(knowing_vlm, side) for side in (small_split.forget, keep)]
    assert max(before) < 0.1
    method.edit(knowing_vlm, small_split, seed=0)
    after = [answers_loss(knowing_vlm, side) for side in (small_split.forget, keep)]
    lost = [late - early for late, early in zip(after, before, strict=True)]
    assert lost[0] > 0.05
    assert lost[0] > lost[1]


@each_surgery
@pytest.mark.parametrize(("side", "words"), [("forget", "to forget"), ("retain", "to keep")])
def test_an_empty_side_is_one_line(method, side, words, tiny_vlm, small_split):
    empty = {"forget": ()} if side == "forget" else {"retain": (), "general": ()}
    before = weights(tiny_vlm)
    with pytest.raises(DataError, match=f"expected .*questions {words}, got none; check --subject"):
        method.edit(tiny_vlm, replace(small_split, **empty), seed=0)
    assert not differing(before, weights(tiny_vlm))


@each_surgery
def test_a_part_without_neurons_is_one_line(cls, tiny_vlm):
    with pytest.raises(LayoutError, match=r"method\.parts: 'projector' has no MLP whose neurons"):
        may_change(tiny_vlm, cls(parts=("projector",)))


@each_surgery
def test_a_run_gives_the_base_back_and_its_artifact_the_same_bits(
    method, knowing_vlm, small_split, tmp_path
):
    base = weights(knowing_vlm)
    with restored(knowing_vlm.model):
        method.edit(knowing_vlm, small_split, seed=3)
        expected = weights(knowing_vlm)
    run = forget(knowing_vlm, small_split, method=method, seed=3, out=tmp_path / "run")
    assert not differing(base, weights(knowing_vlm))
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"manifest.json", "weights.safetensors", "canary.safetensors"}
    cost = run.manifest["cost"]
    assert (cost["trained_parameters"], cost["steps"]) == (0, 0)
    with under_artifacts(knowing_vlm, [run.folder]):
        assert not differing(expected, weights(knowing_vlm))
    assert not differing(base, weights(knowing_vlm))
    assert forget(knowing_vlm, small_split, method=method, seed=3, out=run.folder).resumed


@each_surgery
def test_an_interrupted_run_leaves_nothing(method, knowing_vlm, small_split, tmp_path):
    base = weights(knowing_vlm)

    def interrupt(stage, done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget(knowing_vlm, small_split, method=method, out=tmp_path / "run", progress=interrupt)
    assert not differing(base, weights(knowing_vlm))
    assert not (tmp_path / "run").exists()
