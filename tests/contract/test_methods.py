"""What every registered method holds to."""

import json
import tomllib
from typing import Any

import pytest
import torch

from unsee.data.collate import encode
from unsee.errors import ConfigError
from unsee.losses import cross_entropy
from unsee.methods import METHODS
from unsee.sampling import Sampler
from unsee.settings import resolve
from unsee.train import Method, Terms, Trained, train

FEW = {
    "steps": 2,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
}
# Settings under which a tiny model that knows seven photos forgets four of them; a method that is
# not named here is tried at its defaults.
FORGETS: dict[str, dict[str, Any]] = {
    "vkd": {"lr": 3e-3},
    "grad_diff": {"lr": 1e-3, "retain_weight": 3.0},
    "icu": {"lr": 1e-3, "retain_weight": 3.0},
    "kuda": {"lr": 1e-2},
    "mmunlearner": {"lr": 1e-3, "retain_weight": 3.0},
    "sineproject": {"lr": 1e-3, "retain_weight": 3.0},
}
TRAINED = {name: cls for name, cls in METHODS.items() if issubclass(cls, Trained)}
each_method = pytest.mark.parametrize("cls", TRAINED.values(), ids=TRAINED)


def test_the_methods_that_the_readme_names_are_registered():
    assert {"vkd", "grad_diff"} <= set(METHODS.names())


@pytest.fixture
def few(cls):
    return cls.model_validate(FEW)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


@each_method
def test_it_is_settings_of_the_loop_with_a_line_for_every_field(cls):
    assert Trained in cls.mro()
    assert isinstance(cls(), Method)
    assert cls.kind == "weights"
    described = f"{cls.__doc__}{Trained.__doc__}"
    for field in cls.model_fields:
        assert f" {field}: " in described, field


@each_method
def test_terms_are_finite_named_scalars_with_gradients_only_where_promised(
    few, tiny_vlm, small_split
):
    promised = set(few.trainable(tiny_vlm))
    for name, p in tiny_vlm.model.named_parameters():
        p.requires_grad_(name in promised)
    state = few.prepare(tiny_vlm, small_split, seed=0)
    terms = few.loss(tiny_vlm, Sampler(tiny_vlm, small_split, few, 0).draw(0), state)
    assert isinstance(terms, Terms)
    assert terms.forget
    assert terms.retain
    scalars = [*terms.forget.values(), *terms.retain.values()]
    for name, value in [*terms.forget.items(), *terms.retain.items()]:
        assert name.isidentifier()
        assert value.shape == ()
        assert value.isfinite()
    torch.stack(scalars).sum().backward()
    touched = {n for n, p in tiny_vlm.model.named_parameters() if p.grad is not None}
    assert touched
    assert touched <= promised
    gradients = [p.grad for p in tiny_vlm.model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@each_method
def test_preparing_leaves_the_model_as_it_was(few, tiny_vlm, small_split):
    before = weights(tiny_vlm)
    few.prepare(tiny_vlm, small_split, seed=0)
    after = weights(tiny_vlm)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in tiny_vlm.model.parameters())


@each_method
def test_settings_survive_json_and_toml(cls):
    # Off the defaults, so that a field that is dropped would show.
    moved = cls.model_validate(FEW)
    for settings in (cls(), moved):
        table = settings.model_dump(mode="json")
        assert resolve(cls, json.loads(json.dumps(table))) == settings
        # TOML has no null: what is not set is left out.
        lines = [f"{k} = {json.dumps(v)}" for k, v in table.items() if v is not None]
        assert resolve(cls, tomllib.loads("\n".join(lines))) == settings
    assert cls() != moved


@each_method
def test_an_unknown_setting_is_refused_with_the_nearest_name(cls):
    with pytest.raises(
        ConfigError, match=r"method: stepps: unknown setting; did you mean 'steps'\? \(got 3\)"
    ):
        resolve(cls, {"stepps": 3}, where="method")


@each_method
@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("lr", 0), ("lr", -1e-3), ("forget_batch", 0), ("clip", 0)]
)
def test_a_value_out_of_range_is_refused_by_name(cls, field, value):
    with pytest.raises(ConfigError, match=f"{field}: input should be greater than"):
        resolve(cls, {field: value})


@each_method
def test_settings_do_not_change(cls):
    settings = cls()
    with pytest.raises(ValueError, match="frozen"):
        settings.steps = 3


@each_method
def test_same_seed_same_numbers(few, tiny_vlm, small_split):
    start = weights(tiny_vlm)
    outcomes = []
    for seed in (5, 5, 6):
        tiny_vlm.model.load_state_dict(start)
        result = train(tiny_vlm, small_split, few, seed=seed)
        outcomes.append((result.terms, result.changed, weights(tiny_vlm)))
    first, second, other = outcomes
    assert first[:2] == second[:2]
    assert all(torch.equal(first[2][name], second[2][name]) for name in start)
    assert first[0] != other[0]


@each_method
def test_an_unknown_method_offers_the_nearest_name(cls):
    name = next(name for name, known in METHODS.items() if known is cls)
    with pytest.raises(ConfigError, match=f"unknown method '{name}x'; did you mean '{name}'"):
        METHODS.get(f"{name}x")


def answers_loss(vlm, records):
    batch = encode(vlm, records, answers=True, side="right")
    with torch.no_grad():
        return cross_entropy(vlm.model(**batch.inputs()).logits, batch.labels).item()


@each_method
def test_forget_answers_are_lost_and_the_others_stay(cls, knowing_vlm, small_split):
    name = next(name for name, known in METHODS.items() if known is cls)
    sizes = {"forget_batch": 6, "visible_batch": 4, "retain_batch": 8, "general_batch": 4}
    loop = {"steps": 32, "variants": 1, "checkpoint_every": 0}
    method = cls.model_validate(sizes | loop | FORGETS.get(name, {}))
    keep = (*small_split.visible, *small_split.retain, *small_split.general)
    before = [answers_loss(knowing_vlm, side) for side in (small_split.forget, keep)]
    assert max(before) < 0.1
    train(knowing_vlm, small_split, method)
    after = [answers_loss(knowing_vlm, side) for side in (small_split.forget, keep)]
    assert after[0] > before[0] + 0.35
    assert after[1] < before[1] + 0.15
    assert after[0] - before[0] > 4 * (after[1] - before[1])
