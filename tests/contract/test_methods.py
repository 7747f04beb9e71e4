"""What every registered method holds to."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from unsee.data.collate import encode
from unsee.erasers import ERASERS
from unsee.errors import ConfigError
from unsee.losses import cross_entropy
from unsee.method import Method, Terms, Trained
from unsee.methods import METHODS
from unsee.models.load import load
from unsee.sampling import Sampler
from unsee.settings import resolve
from unsee.train import _trainable, train

ROOT = Path(__file__).parents[2]

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
# A method that keeps nothing has no batches of it.
NOTHING_KEPT = {"visible_batch": 0, "retain_batch": 0, "general_batch": 0}
# Settings under which a tiny model that knows seven photos forgets four of them; a method that is
# not named here is tried at its defaults.
FORGETS: dict[str, dict[str, Any]] = {
    "vkd": {"lr": 3e-3},
    "ga": {"lr": 1e-3},
    "empty_response": {"lr": 2e-2, "retain_weight": 3.0},
    "error_injection": {"lr": 4e-2},
    "grad_diff": {"lr": 1e-3, "retain_weight": 3.0},
    "head_projection": {"lr": 2e-2},
    "icu": {"lr": 1e-3, "retain_weight": 3.0},
    "kl_min": {"lr": 1e-3, "retain_weight": 3.0},
    "kuda": {"lr": 3e-2},
    "max_entropy": {"lr": 2e-2, "retain_weight": 3.0},
    "mmunlearner": {"lr": 1e-3, "retain_weight": 3.0},
    "npo": {"lr": 1e-3, "retain_weight": 3.0},
    "po": {"lr": 1e-3, "retain_weight": 3.0},
    "rmu": {
        "lr": 3e-3,
        "layer": 1,
        "parts": ("language.layers[:2]",),
        "retain_weight": 100.0,
    },
    "sineproject": {"lr": 1e-3, "retain_weight": 10.0},
    "undial": {"lr": 1e-3},
}
TRAINED = {name: cls for name, cls in METHODS.items() if issubclass(cls, Trained)}
each_method = pytest.mark.parametrize("cls", TRAINED.values(), ids=TRAINED)


def ways():
    """Every method, and once more with adapters where it has them."""
    for name, cls in TRAINED.items():
        yield pytest.param(cls, {}, id=name)
        if "lora_rank" in cls.model_fields:
            other = 0 if cls.model_fields["lora_rank"].default else 2
            yield pytest.param(
                cls, {"lora_rank": other}, id=f"{name}-{'lora' if other else 'full'}"
            )


each_way = pytest.mark.parametrize(("cls", "extra"), list(ways()))


def test_the_readme_has_a_row_for_each_and_there_is_a_recipe():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Methods\n")[1]
    rows = re.findall(r"^\| `(\w+)` \|", section.split("\n## ")[0], re.MULTILINE)
    assert sorted(rows) == sorted([*METHODS.names(), *ERASERS.names()])
    recipes = [path.stem for path in (ROOT / "recipes").glob("*.toml")]
    for name in METHODS.names():
        assert any(recipe.startswith(f"world-{name}") for recipe in recipes), name


@pytest.fixture
def extra():
    return {}


@pytest.fixture
def few(cls, extra):
    return cls.model_validate(FEW | ({} if cls.keeps else NOTHING_KEPT) | extra)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


@each_method
def test_it_is_settings_of_the_loop_with_a_line_for_every_field(cls):
    assert Trained in cls.mro()
    assert isinstance(cls(), Method)
    assert cls.kind == "weights"
    described = "".join(base.__doc__ or "" for base in cls.mro() if issubclass(base, Trained))
    for field in cls.model_fields:
        assert f" {field}: " in described, field


@each_way
def test_terms_are_finite_named_scalars_with_gradients_only_where_promised(
    cls, few, tiny_vlm, small_split
):
    with _trainable(tiny_vlm, few) as moving:
        state = few.prepare(tiny_vlm, small_split, seed=0)
        terms = few.loss(tiny_vlm, Sampler(tiny_vlm, small_split, few, 0).draw(0), state)
        assert isinstance(terms, Terms)
        assert terms.forget
        assert bool(terms.retain) == cls.keeps
        scalars = {**terms.forget, **terms.retain}
        for name, value in scalars.items():
            assert name.isidentifier()
            assert value.shape == ()
            assert value.isfinite()
        torch.stack(list(scalars.values())).sum().backward()
        gradients = {n: p.grad for n, p in tiny_vlm.model.named_parameters() if p.grad is not None}
        assert gradients
        assert gradients.keys() <= moving.keys()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        assert any(gradient.any() for gradient in gradients.values())


@each_method
def test_preparing_leaves_the_model_as_it_was(few, tiny_vlm, small_split):
    before = weights(tiny_vlm)
    few.prepare(tiny_vlm, small_split, seed=0)
    after = weights(tiny_vlm)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in tiny_vlm.model.parameters())


@each_method
def test_settings_survive_json_and_toml(cls, few):
    # Off the defaults, so that a field that is dropped would show.
    for settings in (cls(), few):
        table = settings.model_dump(mode="json")
        assert resolve(cls, json.loads(json.dumps(table))) == settings
        # TOML has no null: what is not set is left out.
        lines = [f"{k} = {json.dumps(v)}" for k, v in table.items() if v is not None]
        assert resolve(cls, tomllib.loads("\n".join(lines))) == settings
    assert cls() != few


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


@each_way
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
    sizes = {"forget_batch": 6}
    if cls.keeps:
        sizes |= {"visible_batch": 4, "retain_batch": 8, "general_batch": 4}
    loop = {"steps": 32, "variants": 1, "checkpoint_every": 0}
    method = cls.model_validate(sizes | loop | FORGETS.get(name, {}))
    keep = (*small_split.visible, *small_split.retain, *small_split.general)
    before = [answers_loss(knowing_vlm, side) for side in (small_split.forget, keep)]
    assert max(before) < 0.1
    train(knowing_vlm, small_split, method)
    after = [answers_loss(knowing_vlm, side) for side in (small_split.forget, keep)]
    assert after[0] > before[0] + 0.35
    if not cls.keeps:
        # Nothing holds the others: they are lost along, and that shows.
        assert after[1] > before[1] + 0.35
        return
    assert after[1] < before[1] + 0.15
    assert after[0] - before[0] > 4 * (after[1] - before[1])


# Other values of fields that no rule below makes one for, and what else they need to matter.
OTHERS: dict[str, tuple[dict[str, Any], Any]] = {
    "parts": ({}, ("language.layers[0]",)),
    "lora_rank": ({}, 2),
    # A model that knows nothing has nothing left to be forgotten.
    "icu.forget_weight": ({"stop_margin": -1e3}, 0.5),
    "defended": ({"layer": 0}, 2),
    "empty_response.response": ({}, "Who knows?"),
    "head_projection.defended": ({"layer": 0, "top": 100}, 2),
    "head_projection.top": ({"top": 100}, 90),
    "icu.pool": ({}, 1),
    "icu.stop_margin": ({}, -1e3),
    "input_rephrasing.rephrasings": ({}, 2),
    "input_rephrasing.texts": ({}, ("Say it: {question}",)),
    "layer": ({}, 0),
    "mmunlearner.mask_batches": ({}, 1),
    "po.refusals": ({}, ("I cannot tell.",)),
    "rmu.layer": ({"parts": ("language.layers[:2]",)}, 1),
    "sineproject.forget_loss": ({}, "unlikelihood"),
}


def fields():
    """Every field that is not the loop's own, of every method that may train adapters."""
    for name, cls in METHODS.items():
        if "lora_rank" in cls.model_fields:
            for field in ("lr", *sorted(cls.model_fields.keys() - Trained.model_fields.keys())):
                yield pytest.param(cls, field, id=f"{name}-{field}")


def other(cls, field):
    """Settings that give a field its default, and settings that give it another value."""
    name = next(name for name, known in METHODS.items() if known is cls)
    default = cls.model_fields[field].default
    rules = OTHERS.get(f"{name}.{field}", OTHERS.get(field))
    if rules is not None:
        context, value = rules
    elif isinstance(default, bool):
        context, value = {}, not default
    elif isinstance(default, float):
        context, value = {}, 2 * default
    else:
        pytest.fail(f"give another value of {name}.{field} in OTHERS")
    return context | {field: default}, context | {field: value}


@pytest.mark.parametrize(("cls", "field"), list(fields()))
def test_every_field_of_its_own_changes_what_is_done(cls, field, few, tiny_folder, small_split):
    ends = []
    for settings in other(cls, field):
        vlm = load(tiny_folder, dtype="float32", device="cpu")
        train(vlm, small_split, cls.model_validate(few.model_dump() | settings))
        ends.append(weights(vlm))
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    "cls",
    [cls for _, cls in (*METHODS.items(), *ERASERS.items())],
    ids=[name for name, _ in (*METHODS.items(), *ERASERS.items())],
)
def test_what_is_searched_is_a_setting_at_both_of_its_ends(cls):
    assert cls.space
    for name, span in cls.space.items():
        assert name in cls.model_fields
        for value in span if isinstance(span, tuple) else (span.low, span.high):
            assert resolve(cls, {name: value}) is not None
