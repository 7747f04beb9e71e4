import math
from collections import OrderedDict

import pytest
import torch

from unsee.checkpoint import CHECKPOINT
from unsee.data.collate import encode
from unsee.data.records import Split
from unsee.errors import ConfigError, DataError
from unsee.losses import DISTANCES, cross_entropy, gradient_ascent, unlikelihood
from unsee.methods.vkd import VKD
from unsee.models.hooks import captured
from unsee.models.load import load
from unsee.models.tiny import tiny_llava
from unsee.saliency import fisher_ratio_mask
from unsee.sampling import Sampler
from unsee.settings import resolve
from unsee.teacher import Teacher, visual_features
from unsee.train import train

FEW = {
    "steps": 2,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
    "mask_batches": 1,
}
# Spelled out, so that another choice of defaults leaves the tests alone.
CHOSEN = {
    "target": "stranger",
    "feature": "projector",
    "distance": "mse",
    "output": "unlikelihood",
    "output_every": 1,
    "forget_weight": 1.0,
    "output_weight": 1.0,
    "distill_weight": 1.0,
    "retain_weight": 1.0,
    "blocks": -1,
    "projector": True,
    "mask": "none",
}
FEATURES = ("projector", "vision[0]", "vision[-1]", "language[0]")


def vkd(**settings):
    return VKD.model_validate(FEW | CHOSEN | settings)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    """A model of the same architecture with other weights."""
    return tiny_llava(tmp_path_factory.mktemp("other") / "tiny", seed=9)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def trained(vlm, split, method):
    train(vlm, split, method)
    return weights(vlm)


def photos_of(records):
    return list(OrderedDict.fromkeys(r.image for r in records if r.image is not None))


def move(vlm, by=0.1):
    """Trains the visual parts to something else."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in vlm.layout.parameter_names(vlm.model, ["vision", "projector"]):
            p = vlm.model.get_parameter(name)
            p.add_(by * torch.randn(p.shape, generator=generator))


def beginning(vlm, split, method, step=0):
    """State and batch of a step, with only what is trained in need of a gradient."""
    names = method.trainable(vlm)
    for name, p in vlm.model.named_parameters():
        p.requires_grad_(name in names)
    state = method.prepare(vlm, split, seed=0)
    return state, Sampler(vlm, split, method, 0).draw(step)


# What is trained.


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, ["vision", "projector"]),
        ({"blocks": 1}, ["vision.blocks[1]", "projector"]),
        ({"blocks": 2}, ["vision.blocks[:2]", "projector"]),
        ({"blocks": 0}, ["projector"]),
        ({"projector": False}, ["vision"]),
        ({"blocks": 1, "projector": False}, ["vision.blocks[1]"]),
    ],
)
def test_trainable_names_are_those_of_the_blocks_asked_for(settings, parts, tiny_vlm):
    names = vkd(**settings).trainable(tiny_vlm)
    assert names == tiny_vlm.layout.parameter_names(tiny_vlm.model, parts)
    frozen = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["language", "head"])
    assert not set(names) & set(frozen)


def test_blocks_are_counted_from_the_last_one_that_is_used(tiny_vlm):
    # As in LLaVA-1.5, whose projector reads the last hidden state but one.
    tiny_vlm.model.config.vision_feature_layer = -2
    names = vkd(blocks=1, projector=False).trainable(tiny_vlm)
    assert names == tiny_vlm.layout.parameter_names(tiny_vlm.model, ["vision.blocks[0]"])


SETTINGS = [
    *({"target": target} for target in ("away", "stranger", "neutral", "pruned", "base")),
    *({"feature": feature} for feature in FEATURES),
    *({"distance": distance} for distance in DISTANCES),
    *({"output": output} for output in ("none", "ascent", "unlikelihood", "npo")),
    *({"mask": mask} for mask in ("gradient", "step")),
    {"output_every": 2},
    {"blocks": 1, "feature": "vision[1]"},
    {"teacher_noise": 0.1, "teacher_bits": 8},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_each_setting_runs_and_leaves_the_language_model_alone(
    settings, tiny_vlm, small_split, other_folder
):
    if settings.get("target") == "base":
        settings = settings | {"pretrained": str(other_folder)}
    method = vkd(**settings)
    text = encode(tiny_vlm, small_split.general[-1:], answers=True, side="right").inputs()
    with torch.no_grad():
        expected = tiny_vlm.model(**text).logits
    before = weights(tiny_vlm)
    result = train(tiny_vlm, small_split, method)

    names = {"forget.feature", "retain.distill", "retain.answers"}
    names |= set() if method.output == "none" else {"forget.output"}
    assert set(result.terms[0]) == names
    alone = {"forget.feature", "retain.distill"}
    assert set(result.terms[1]) == (alone if method.output_every == 2 else names)
    assert all(math.isfinite(value) for terms in result.terms for value in terms.values())

    assert result.changed
    assert set(result.changed) <= set(method.trainable(tiny_vlm))
    after = weights(tiny_vlm)
    for name in tiny_vlm.layout.parameter_names(tiny_vlm.model, ["language", "head"]):
        assert name not in result.changed
        assert torch.equal(before[name], after[name])
    with torch.no_grad():
        assert torch.equal(tiny_vlm.model(**text).logits, expected)


@pytest.mark.parametrize("target", ["away", "stranger", "neutral", "pruned", "base"])
@pytest.mark.parametrize("feature", ["projector", "vision[1]"])
def test_features_alone_run_no_language_model(target, feature, tiny_vlm, small_split, other_folder):
    method = vkd(
        target=target, feature=feature, output_every=0, pretrained=str(other_folder), steps=3
    )
    with captured(tiny_vlm.model, {"language": tiny_vlm.layout.language_model}) as outputs:
        result = train(tiny_vlm, small_split, method)
        assert outputs == {}
    assert [set(terms) for terms in result.terms] == [{"forget.feature", "retain.distill"}] * 3
    assert result.changed


def test_output_terms_run_every_so_many_steps(tiny_vlm, small_split):
    result = train(tiny_vlm, small_split, vkd(output_every=3, steps=5))
    ran = ["forget.output" in terms and "retain.answers" in terms for terms in result.terms]
    assert ran == [True, False, False, True, False]


def test_a_keep_side_of_text_alone_is_no_obstacle(tiny_vlm, small_split):
    split = Split(forget=small_split.forget, general=small_split.general[-1:])
    result = train(tiny_vlm, split, vkd(target="away", output="ascent"))
    assert set(result.terms[0]) == {"forget.feature", "forget.output", "retain.answers"}
    assert result.changed


# Every setting does something.

FLIPS = {
    "steps": ({}, 2, 3),
    "lr": ({}, 1e-2, 1e-3),
    "average": ({"steps": 4}, 0.6, 0.0),
    "forget_batch": ({}, 2, 3),
    "visible_batch": ({}, 1, 2),
    "retain_batch": ({}, 2, 3),
    "general_batch": ({}, 2, 3),
    "variants": ({}, 2, 5),
    "clip": ({}, 1.0, 1e-3),
    "checkpoint_every": ({}, 0, 1),
    "target": ({}, "stranger", "away"),
    "margin": ({"target": "away"}, 0.5, 0.1),
    "neighbours": ({"target": "neutral"}, 1, 3),
    "pruned_share": ({"target": "pruned"}, 0.1, 0.5),
    "pretrained": ({"target": "base"}, "tiny", "other"),
    "feature": ({}, "projector", "vision[1]"),
    "distance": ({}, "mse", "cosine"),
    "output": ({}, "none", "unlikelihood"),
    "output_every": ({}, 1, 2),
    "beta": ({"output": "npo"}, 0.4, 1.0),
    "forget_weight": ({}, 1.0, 0.0),
    "output_weight": ({}, 1.0, 0.5),
    "distill_weight": ({}, 1.0, 0.0),
    "retain_weight": ({}, 1.0, 0.0),
    "blocks": ({}, -1, 1),
    "projector": ({}, True, False),
    "mask": ({}, "none", "step"),
    "mask_threshold": ({"mask": "gradient"}, 1.0, 10.0),
    "mask_batches": ({"mask": "step"}, 1, 2),
    "teacher_noise": ({}, 0.0, 0.2),
    "teacher_bits": ({}, 0, 8),
    "teacher": ({}, None, "other"),
}


def test_every_field_is_tried():
    assert set(FLIPS) == set(VKD.model_fields)


@pytest.mark.parametrize("field", FLIPS)
def test_every_field_changes_what_is_done(
    field, fresh, small_split, tiny_folder, other_folder, tmp_path
):
    context, *values = FLIPS[field]
    folders = {"tiny": str(tiny_folder), "other": str(other_folder)}
    outcomes = []
    for number, value in enumerate(values):
        folder = tmp_path / str(number)
        folder.mkdir()
        vlm = fresh()
        value = folders.get(value, value) if isinstance(value, str) else value
        result = train(vlm, small_split, vkd(**context, **{field: value}), folder=folder)
        outcomes.append((weights(vlm), result.terms, (folder / CHECKPOINT).exists()))
    (one, one_terms, one_kept), (two, two_terms, two_kept) = outcomes
    same_weights = all(torch.equal(one[name], two[name]) for name in one)
    assert not (same_weights and one_terms == two_terms and one_kept == two_kept)


# The terms.


@pytest.mark.parametrize("feature", ["projector", "vision[1]", "language[0]"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_terms_are_those_of_the_formula(feature, distance, tiny_vlm, small_split):
    method = vkd(
        feature=feature,
        distance=distance,
        forget_weight=0.7,
        output_weight=0.3,
        distill_weight=2.0,
        retain_weight=0.9,
    )
    state, batch = beginning(tiny_vlm, small_split, method)
    teacher = Teacher.of(tiny_vlm, feature)
    move(tiny_vlm)
    terms = method.loss(tiny_vlm, batch, state)

    measure = DISTANCES[distance]
    mine = visual_features(tiny_vlm, batch.forget.batch, feature, logits=True)
    aims = teacher.features(tiny_vlm, [(state.stand_in[p], 0) for p, _ in batch.forget.photos])
    pulled = [measure(mine.features[i : i + 1], aims[i : i + 1]) for i in range(2)]
    kept = visual_features(tiny_vlm, batch.keep.batch, feature, logits=True)
    held = [
        measure(kept.features[i : i + 1], teacher.features(tiny_vlm, [shown]))
        for i, shown in enumerate(batch.keep.photos)
        if shown[0] not in photos_of(small_split.forget)
    ]
    assert 0 < len(held) < len(batch.keep.photos)

    def scores(rows):
        return tiny_vlm.model(**rows.batch.inputs(), use_cache=False).logits

    expected = {
        "feature": 0.7 * sum(pulled) / 2,
        "output": 0.3 * unlikelihood(scores(batch.forget), batch.forget.batch.labels),
        "distill": 2.0 * sum(held) / len(held),
        "answers": 0.9 * cross_entropy(scores(batch.keep), batch.keep.batch.labels),
    }
    assert set(terms.forget) == {"feature", "output"}
    assert set(terms.retain) == {"distill", "answers"}
    for name, value in {**terms.forget, **terms.retain}.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-4), name
        assert value.requires_grad


def test_output_terms_by_name(tiny_vlm, small_split):
    state, batch = beginning(tiny_vlm, small_split, vkd())
    found = {
        output: vkd(output=output, output_weight=2.0, beta=0.5)
        .loss(tiny_vlm, batch, state)
        .forget["output"]
        for output in ("ascent", "unlikelihood", "npo")
    }
    rows = batch.forget.batch
    logits = tiny_vlm.model(**rows.inputs(), use_cache=False).logits
    assert found["ascent"].item() == pytest.approx(2 * gradient_ascent(logits, rows.labels).item())
    assert found["unlikelihood"].item() == pytest.approx(
        2 * unlikelihood(logits, rows.labels).item()
    )
    # The student has not moved from the reference yet.
    assert found["npo"].item() == pytest.approx(2 * 2 * math.log(2) / 0.5, rel=1e-4)
    # The reference stays when the student forgets.
    move(tiny_vlm)
    moved = vkd(output="npo", output_weight=2.0, beta=0.5).loss(tiny_vlm, batch, state)
    assert abs(moved.forget["output"].item() - found["npo"].item()) > 1e-3


def test_nothing_holds_the_forget_photos_in_place(tiny_vlm, small_split):
    split = Split(
        forget=small_split.forget, visible=small_split.visible, general=small_split.general
    )
    method = vkd(retain_batch=0, general_batch=0, visible_batch=3)
    state, batch = beginning(tiny_vlm, split, method)
    assert set(method.loss(tiny_vlm, batch, state).retain) == {"answers"}


def test_distillation_is_zero_at_the_teacher(tiny_vlm, small_split):
    method = vkd()
    state, batch = beginning(tiny_vlm, small_split, method)
    terms = method.loss(tiny_vlm, batch, state)
    assert terms.retain["distill"].item() == pytest.approx(0, abs=1e-6)
    assert terms.forget["feature"].item() > 0.01


# Targets.


def slow_means(vlm, teacher, photos):
    """Mean over patches of the teacher's features of each photo, in plain Python."""
    return [
        [sum(column) / len(column) for column in zip(*rows, strict=True)]
        for rows in teacher.features(vlm, [(p, 0) for p in photos]).tolist()
    ]


def slow_cosine(u, v):
    dot = sum(x * y for x, y in zip(u, v, strict=True))
    return dot / math.sqrt(sum(x * x for x in u) * sum(y * y for y in v))


@pytest.mark.parametrize("feature", ["projector", "vision[0]", "language[1]"])
def test_stand_ins_are_the_nearest_unknown_faces(feature, tiny_vlm, small_split):
    method = vkd(feature=feature)
    state = method.prepare(tiny_vlm, small_split, seed=0)
    teacher = Teacher.of(tiny_vlm, feature)
    unknown, own = photos_of(small_split.general), photos_of(small_split.forget)
    theirs = slow_means(tiny_vlm, teacher, unknown)
    nearest = {}
    for photo, mean in zip(own, slow_means(tiny_vlm, teacher, own), strict=True):
        near = [slow_cosine(mean, other) for other in theirs]
        nearest[photo] = unknown[near.index(max(near))]
    assert state.stand_in == nearest


@pytest.mark.parametrize("neighbours", [1, 2, 4])
def test_neutral_exchanges_the_mean_of_the_person(neighbours, tiny_vlm, small_split):
    method = vkd(target="neutral", neighbours=neighbours)
    state, batch = beginning(tiny_vlm, small_split, method)
    teacher = Teacher.of(tiny_vlm, "projector")
    theirs = slow_means(tiny_vlm, teacher, photos_of(small_split.general))
    for person in ("Ada", "Bo"):
        photos = photos_of(r for r in small_split.forget if r.subject == person)
        own = slow_means(tiny_vlm, teacher, photos)
        likeness = [sum(slow_cosine(mean, other) for mean in own) for other in theirs]
        order = sorted(range(3), key=lambda i: -likeness[i])[:neighbours]
        for photo in photos:
            expected = [
                sum(theirs[i][c] for i in order) / len(order) - sum(o[c] for o in own) / len(own)
                for c in range(32)
            ]
            assert state.shift[photo].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    photos = batch.forget.photos
    aims = teacher.features(tiny_vlm, photos)
    aims = aims + torch.stack([state.shift[photo] for photo, _ in photos])[:, None]
    features = visual_features(tiny_vlm, batch.forget.batch, "projector", logits=False).features
    found = method.loss(tiny_vlm, batch, state).forget["feature"]
    assert found.item() == pytest.approx(DISTANCES["mse"](features, aims).mean().item(), rel=1e-4)


def test_a_known_face_among_the_general_photos_stands_in_for_nobody(tiny_vlm, small_split):
    known = (*small_split.forget[:1], *small_split.retain[:1])
    split = Split(
        forget=small_split.forget,
        retain=small_split.retain,
        general=(*known, *small_split.general),
    )
    state = vkd().prepare(tiny_vlm, split, seed=0)
    assert set(state.stand_in.values()) <= set(photos_of(small_split.general))


@pytest.mark.parametrize("distance", DISTANCES)
def test_away_leaves_the_teacher_without_any_other_term(distance, tiny_vlm, small_split):
    # At the teacher every distance has its least value, and so no gradient.
    method = vkd(target="away", distance=distance, margin=0.2, output_every=0, distill_weight=0.0)
    terms = train(tiny_vlm, small_split, method.model_copy(update={"steps": 12})).terms
    first, last = (terms[step]["forget.feature"] for step in (0, -1))
    assert first == pytest.approx(0.2, rel=1e-2)
    assert last < 0.15


def test_away_stops_at_the_margin(tiny_vlm, small_split):
    near, far = (vkd(target="away", margin=m, distance="cosine") for m in (0.01, 1.5))
    state, batch = beginning(tiny_vlm, small_split, near)
    assert near.loss(tiny_vlm, batch, state).forget["feature"].item() == pytest.approx(
        0.01, abs=2e-4
    )
    move(tiny_vlm)
    found = near.loss(tiny_vlm, batch, state).forget["feature"]
    assert found == 0
    found.backward()
    gradients = [p.grad for p in tiny_vlm.model.parameters() if p.grad is not None]
    assert not any(gradient.any() for gradient in gradients)
    tiny_vlm.model.zero_grad()
    found = far.loss(tiny_vlm, batch, state).forget["feature"]
    assert 0 < found < 1.5
    found.backward()
    assert any(p.grad.any() for p in tiny_vlm.model.parameters() if p.grad is not None)


@pytest.mark.parametrize("target", ["pruned", "base"])
def test_forget_targets_of_another_teacher(target, tiny_vlm, small_split, other_folder):
    method = vkd(target=target, pretrained=str(other_folder))
    state, batch = beginning(tiny_vlm, small_split, method)
    features = visual_features(tiny_vlm, batch.forget.batch, "projector", logits=False).features
    if target == "base":
        other = load(other_folder, dtype="float32", device="cpu")
        aims = Teacher.of(other, "projector").features(other, batch.forget.photos)
    else:
        teacher = Teacher.of(tiny_vlm, "projector")
        teacher.pruned_from(tiny_vlm, small_split, method.pruned_share)
        aims = teacher.features(tiny_vlm, batch.forget.photos, forget=True)
    terms = method.loss(tiny_vlm, batch, state)
    expected = DISTANCES["mse"](features, aims).mean().item()
    assert expected > 1e-4
    assert terms.forget["feature"].item() == pytest.approx(expected, rel=1e-4)
    # What is kept follows the starting model all the same.
    assert terms.retain["distill"].item() == pytest.approx(0, abs=1e-6)


# Masks.


@pytest.mark.parametrize(
    "settings",
    [
        {"mask": "step"},
        # Without retain terms nothing else may move a weight outside the mask.
        {"mask": "gradient", "retain_weight": 0.0, "distill_weight": 0.0},
    ],
    ids=["step", "gradient"],
)
def test_weights_outside_the_mask_stay(settings, fresh, small_split):
    method = vkd(steps=3, mask_threshold=1.5, **settings)
    vlm = fresh()
    before = weights(vlm)
    beginning(vlm, small_split, method)
    sampler = Sampler(vlm, small_split, method, 0)
    mask = fisher_ratio_mask(vlm, sampler, batches=1, threshold=1.5)
    vlm = fresh()
    train(vlm, small_split, method, seed=0)
    after = weights(vlm)
    moved = {name: after[name] != before[name] for name in mask}
    assert not any((moved[name] & (mask[name] == 0)).any() for name in mask)
    inside = sum(int(mask[name].sum()) for name in mask)
    assert sum(int(m.sum()) for m in moved.values()) > 0.5 * inside
    assert 0.02 < inside / sum(m.numel() for m in mask.values()) < 0.98


def test_a_gradient_mask_leaves_the_retain_gradient(fresh, small_split, monkeypatch):
    def nothing_salient(vlm, sampler, **options):
        moving = {n: p for n, p in vlm.model.named_parameters() if p.requires_grad}
        return {name: torch.zeros_like(p) for name, p in moving.items()}

    monkeypatch.setattr("unsee.methods.vkd.fisher_ratio_mask", nothing_salient)
    masked, retain_only, free = (
        trained(fresh(), small_split, vkd(**settings))
        for settings in ({"mask": "gradient"}, {"forget_weight": 0.0, "output": "none"}, {})
    )
    assert all(torch.equal(masked[name], retain_only[name]) for name in masked)
    assert not all(torch.equal(masked[name], free[name]) for name in masked)


# What is refused.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 3}, r"method\.blocks: expected at most 2 for .*tiny, got 3"),
        ({"blocks": 0, "projector": False}, "method: blocks=0 with projector=false trains nothing"),
        ({"target": "base"}, r"method\.target='base' needs method\.pretrained: the folder of the"),
        ({"feature": "vision[2]"}, r"method\.feature: expected vision\[k\] with k below 2"),
        (
            {"feature": "vision[0]", "blocks": 1},
            r"method\.feature: expected a block from vision\[1\] on, which is where "
            r"method\.blocks=1 begins to train, got 'vision\[0\]'",
        ),
        ({"feature": "vision[-1]", "blocks": 0}, r"expected a block from vision\[2\] on"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, tiny_vlm, small_split):
    before = weights(tiny_vlm)
    with pytest.raises(ConfigError, match=message):
        train(tiny_vlm, small_split, vkd(**settings))
    after = weights(tiny_vlm)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("target", ["stranger", "neutral"])
def test_unknown_faces_are_asked_for(target, tiny_vlm, small_split):
    split = Split(forget=small_split.forget, retain=small_split.retain)
    message = (
        rf"method\.target='{target}' needs photos of unknown faces among the general photos, "
        "got none; give --general or choose target 'away'"
    )
    with pytest.raises(DataError, match=message):
        train(tiny_vlm, split, vkd(target=target))


@pytest.mark.parametrize("feature", ["vision", "projector[1]", "language[x]", "head", ""])
def test_a_feature_of_another_form_is_refused(feature):
    with pytest.raises(ConfigError, match="feature: string should match pattern"):
        resolve(VKD, {"feature": feature})
