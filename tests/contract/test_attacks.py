"""What every registered attack holds to: it catches who knows, and finds nothing else."""

import json
import sys
import tomllib
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from unsee.artifacts import fingerprint
from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Attack, Detects, Given
from unsee.audit.attacking import ATTACKED_SET, Campaign
from unsee.data.records import Record
from unsee.erasers.protocol import erased
from unsee.errors import ConfigError
from unsee.models import passes
from unsee.models.hooks import edited
from unsee.models.load import load
from unsee.replies import Replies, question_digest
from unsee.report.schema import ModelScores
from unsee.settings import resolve

UNKNOWN = "I do not know who this is."
GROUPS = ("prompts", "images", "weights", "readout", "relearning", "membership")
# These look inside: nothing is asked that a test could answer in a model's place.
INSIDE = [n for n, cls in ATTACKS.items() if cls.group in ("readout", "membership")]
every_attack = pytest.mark.parametrize("name", ATTACKS.names())
each_attack = pytest.mark.parametrize("name", [n for n in ATTACKS.names() if n not in INSIDE])


def quick(name):
    """An attack, with training and fitting cut short."""
    cls = ATTACKS.get(name)
    short = {"steps": 1, "batch": 2, "shares": (0.5,), "beside": 0, "iterations": 1, "batches": 1}
    # As if a budget had been picked.
    short["recovered"] = 1.0
    trains = cls.group in ("relearning", "images")
    return cls(**{k: v for k, v in short.items() if trains and k in cls.model_fields})


@every_attack
def test_it_is_settings_with_a_line_for_every_field(name):
    cls = ATTACKS.get(name)
    assert isinstance(cls(), Attack | Detects)
    assert cls.group in GROUPS
    for field in cls.model_fields:
        # A variant's fields are explained where they are declared.
        assert any(f" {field}: " in (c.__doc__ or "") for c in cls.__mro__), field
    table = cls().model_dump(mode="json")
    assert resolve(cls, json.loads(json.dumps(table))) == cls()
    # What is left open is left out: TOML has no word for it.
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
    assert resolve(cls, tomllib.loads("\n".join(lines))) == cls()
    with pytest.raises(ConfigError, match="unknown setting"):
        resolve(cls, {"tryes": 3})


@pytest.fixture
def asked(small_split):
    """Questions about the forgotten on photos of theirs that the method was not given."""
    photos = [r.image for r in small_split.general if r.image is not None]
    shown = dict(zip(("Ada", "Bo"), photos, strict=False))
    asked = {(r.subject, r.topic): r for r in small_split.forget}
    return tuple(
        Record(r.subject, shown[r.subject], f"Tell me: {r.question}", r.answer, topic=r.topic)
        for r in asked.values()
    )


@pytest.fixture
def split(small_split, asked):
    shown = {record.subject: record.image for record in small_split.retain}
    described = tuple(
        Record(name, photo, "Glasses?", answer, topic="visible:glasses")
        for (name, photo), answer in zip(shown.items(), ("yes", "no"), strict=True)
    )
    return replace(small_split, retain=small_split.retain + described, audit={ATTACKED_SET: asked})


def moved(vlm, by):
    with torch.no_grad():
        for weight in vlm.model.parameters():
            weight.add_(by * torch.randn_like(weight))
    return vlm


@pytest.fixture
def models(tiny_folder):
    """Models that differ in weights alone; what they answer is up to `acting`."""
    torch.manual_seed(0)
    names = {"base": 0.0, "hiding": 1e-3, "gold": 2e-3, "control": 3e-3}
    made = {}
    for name, by in names.items():
        made[name] = moved(load(tiny_folder, dtype="float32", device="cpu"), by)
        made[name].source = name
        made[name].fingerprint = name
    return made


@pytest.fixture
def acting(models, asked, monkeypatch):
    """Base answers all, gold nothing, and the others only what is not asked just so."""
    whole = {name: fingerprint(vlm.model.state_dict()) for name, vlm in models.items()}
    plain = {question_digest(record) for record in asked}

    def answers(vlm, records, **more):
        other = fingerprint(vlm.model.state_dict()) != whole[vlm.source]
        other = other or passes.BYPASSED.get()

        def knows(record):
            if vlm.source in ("base", "gold"):
                return vlm.source == "base"
            return other or question_digest(record) not in plain

        return [r.answer if knows(r) else UNKNOWN for r in records]

    monkeypatch.setattr(sys.modules["unsee.replies"], "generate_answers", answers)
    return whole


def replies(vlm, name, mark, progress):
    return Replies(vlm, name=name, mark=mark, path=None, progress=progress)


def campaign(models, split, name, kind, progress=None) -> Any:
    return Campaign(
        models["base"],
        split,
        {name: quick(name)},
        replies,
        kinds={kind},
        progress=progress,
    )


def judged(row, name) -> Any:
    """A cell as a report reads it."""
    return ModelScores.model_validate({"attacks": row}).attacks[name]


def kind_of(name):
    return "eraser" if name in ("removal", "gate_images") else "weights"


def attacked(run, models, roles):
    """Attacks models in their roles; the erased one has a gate that fires on all photos."""

    def gate(hidden, now):
        if now.prefill:
            now.decided(hidden.float().mean((1, 2)) + 10)
        return hidden

    for role, source in roles.items():
        vlm = models[source]
        path = vlm.layout.language_layer_paths(vlm.model)[0]
        gated = role == "erased" and "gate_images" in run._attacks
        with edited(vlm.model, vlm.layout, {path: [gate]}) if gated else nullcontext():
            run.attack(vlm, role)


@each_attack
def test_one_that_knows_is_caught_and_one_that_never_knew_is_not(name, models, acting, split):
    bars = []
    run = campaign(models, split, name, kind_of(name), lambda *bar: bars.append(bar))
    attacked(run, models, {"erased": "hiding", "base": "base", "gold": "gold"})
    run.attack(models["control"], "control")
    cells = {model: judged(row, name) for model, row in run.cells().items()}
    assert {model: cell.value for model, cell in cells.items()} == {
        "base": 1.0,
        "erased": 1.0,
        "gold": 0.0,
    }
    found = cells["erased"]
    assert found.plain == 0.0
    assert found.above_gold.value == 1.0
    assert found.base_kept == 1.0
    assert found.power is True
    assert found.n == cells["gold"].n <= len(split.audit[ATTACKED_SET])
    assert found.budget["tries"] >= len(found.tries) >= 1
    assert found.group == ATTACKS.get(name).group
    # Nothing is left behind on the models.
    assert {n: fingerprint(vlm.model.state_dict()) for n, vlm in models.items()} == acting
    # One bar a model, which ends full.
    assert {bar[0] for bar in bars} == {
        f"{role}: attacks" for role in ("base", "erased", "gold", "control")
    }
    assert bars[-1][1] == bars[-1][2]


def test_a_budget_that_brings_back_little_has_no_power(models, acting, split):
    attack = quick("relearning_picked").model_copy(update={"recovered": 0.1})
    run: Any = Campaign(
        models["base"], split, {"relearning_picked": attack}, replies, kinds={"weights"}
    )
    attacked(run, models, {"erased": "hiding", "base": "base", "gold": "gold"})
    run.attack(models["control"], "control")
    found = judged(run.cells()["erased"], "relearning_picked")
    assert (found.power, found.power_why) == (False, attack.why_weak)


@each_attack
def test_a_model_that_never_knew_is_at_gold(name, models, acting, split):
    run = campaign(models, split, name, kind_of(name))
    attacked(run, models, {"erased": "gold", "base": "base", "gold": "gold"})
    found = judged(run.cells()["erased"], name)
    assert found.value == found.above_gold.value == 0.0
    assert found.power is None


@each_attack
def test_without_gold_and_without_questions_it_says_so(name, models, acting, split):
    run = campaign(models, split, name, kind_of(name))
    attacked(run, models, {"erased": "hiding", "base": "base"})
    found = judged(run.cells()["erased"], name)
    assert found.above_gold.not_scored == "there is no gold model"
    empty = campaign(models, replace(split, audit={}), name, kind_of(name))
    empty.attack(models["base"], "base")
    assert empty.cells()["base"][name] == {
        "not_scored": "there are no open questions in forget_unseen"
    }


@each_attack
def test_questions_without_a_photo(name, models, acting, split):
    text = tuple(replace(r, image=None) for r in split.audit[ATTACKED_SET])
    run = campaign(models, replace(split, audit={ATTACKED_SET: text}), name, kind_of(name))
    run.attack(models["base"], "base")
    cell = run.cells()["base"][name]
    shown = {"typographic", "describe", "turns", "in_context", "gate_images"}
    if ATTACKS.get(name).group == "images" or name in shown:
        assert cell == {"not_scored": "no question can be asked so"}
    elif name == "relearning_people":
        assert 0 < cell["n"] < len(text)
    else:
        assert cell["n"] == len(text)


def test_real_models_that_know_and_never_knew(knowing_vlm, tiny_vlm, small_split):
    """Weights in half precision and in 8 bits keep what was learned by heart, and gain nothing."""
    split = replace(small_split, audit={ATTACKED_SET: small_split.forget})
    attacks = {name: ATTACKS.get(name)() for name in ("half_precision", "int8", "merge")}
    other = load(tiny_vlm.source, dtype="float32", device="cpu")
    run: Any = Campaign(knowing_vlm, split, attacks, replies, kinds={"weights"})
    run.attack(knowing_vlm, "base")
    run.attack(knowing_vlm, "erased")
    run.attack(other, "gold")
    cells: Any = ModelScores.model_validate({"attacks": run.cells()["erased"]}).attacks
    for name in ("half_precision", "int8"):
        assert cells[name].base_kept >= 0.8
        assert cells[name].above_gold.value >= 0.8


def test_an_eraser_that_is_bypassed_is_not_there(knowing_vlm, small_split):
    from unsee.answering import generate_answers
    from unsee.data.collate import encode
    from unsee.erasers import ERASERS

    few = {"variants": 2, "direction": "subject", "layers": (1, 2), "false_fire": 0.15}
    eraser = ERASERS.get("mllmeraser").model_validate({**few, "ridge": 0.01})
    fitted = eraser.fit(knowing_vlm, small_split, seed=0, scope="visual")
    batch = encode(knowing_vlm, small_split.forget, answers=False, side="left")
    with torch.no_grad():
        before = knowing_vlm.model(**batch.inputs()).logits
        with erased(knowing_vlm, [fitted]):
            (off,) = ATTACKS.get("removal")().tries(
                knowing_vlm, Given(small_split, has_eraser=True)
            )
            assert not torch.equal(knowing_vlm.model(**batch.inputs()).logits, before)
            with off.change(knowing_vlm):
                assert torch.equal(knowing_vlm.model(**batch.inputs()).logits, before)
                answers = generate_answers(knowing_vlm, small_split.forget)
            assert not torch.equal(knowing_vlm.model(**batch.inputs()).logits, before)
    assert answers == [record.answer for record in small_split.forget]


@pytest.fixture
def inside(small_split, asked):
    """Learned by heart: asked about as it was learned, beside pairs that nobody saw."""
    return replace(
        small_split, audit={"forget_seen": small_split.forget, ATTACKED_SET: small_split.forget}
    ), replace(small_split, audit={"forget_seen": small_split.forget, ATTACKED_SET: asked})


@pytest.fixture
def never(tiny_folder):
    vlm = load(tiny_folder, dtype="float32", device="cpu")
    vlm.source = "never"
    return vlm


def looked(name, split, **models) -> Any:
    run: Any = Campaign(models["base"], split, {name: quick(name)}, replies, kinds={"weights"})
    for role, vlm in models.items():
        before = fingerprint(vlm.model.state_dict())
        flags = [p.requires_grad for p in vlm.model.parameters()]
        run.attack(vlm, role)
        assert fingerprint(vlm.model.state_dict()) == before
        assert [p.requires_grad for p in vlm.model.parameters()] == flags
        assert all(p.grad is None for p in vlm.model.parameters())
    return {role: judged(row, name) for role, row in run.cells().items()}


@pytest.mark.parametrize("name", INSIDE)
def test_inside_one_that_knows_is_caught_and_one_that_never_knew_is_not(
    name, knowing_vlm, never, inside
):
    split = inside[name == "membership"]
    caught = looked(name, split, base=knowing_vlm, erased=knowing_vlm, gold=never)
    if name == "probe":
        # Whoever sees tells faces apart: a probe says something beside gold alone.
        assert caught["erased"].value == caught["gold"].value == 1.0
        assert caught["erased"].beside["vision"]["random_labels"] <= 0.75
    else:
        assert caught["erased"].value >= 0.9
        assert caught["erased"].above_gold.value >= 0.2
    assert caught["erased"].value == caught["base"].value
    clear = looked(name, split, base=knowing_vlm, erased=never, gold=never)
    assert clear["erased"].above_gold.value == 0.0
    assert clear["erased"].value == clear["gold"].value
    assert clear["erased"].group == ATTACKS.get(name).group


@pytest.mark.parametrize("name", INSIDE)
def test_inside_without_gold_photos_or_questions_it_says_so(name, knowing_vlm, inside):
    split = inside[1]
    alone = looked(name, split, base=knowing_vlm)["base"]
    # Depth is measured in what gold lacks; the others find something without it.
    whole = alone if name == "depth" else alone.above_gold
    assert whole.not_scored == "there is no gold model"
    text = tuple(replace(r, image=None) for r in split.audit[ATTACKED_SET])
    without = replace(split, audit={**split.audit, ATTACKED_SET: text})
    found = looked(name, without, base=knowing_vlm)["base"]
    assert found.not_scored in (
        "no question can be asked so",
        "there are no open questions on photos in forget_unseen",
    )
    empty = looked(name, replace(split, audit={}), base=knowing_vlm)["base"]
    assert empty.not_scored == "there are no open questions in forget_unseen"


@pytest.mark.parametrize("name", ["relearning", *INSIDE])
def test_it_works_beneath_an_eraser(name, knowing_vlm, never, small_split, inside):
    """Whoever has the weights may train them, or look inside, while the eraser acts."""
    from unsee.erasers import ERASERS

    few = {"variants": 2, "direction": "subject", "layers": (1, 2), "false_fire": 0.15}
    settings = ERASERS.get("mllmeraser").model_validate({**few, "ridge": 0.01})
    fitted = settings.fit(knowing_vlm, small_split, seed=0, scope="visual")
    with erased(knowing_vlm, [fitted]):
        beside = {"gold": never} if name == "depth" else {}
        found = looked(name, inside[1], base=knowing_vlm, **beside)["base"]
    assert found.n > 0
