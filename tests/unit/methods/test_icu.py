import pytest
import torch

from unsee.losses import answer_margin, cross_entropy, kl_to_reference
from unsee.methods.icu import ICU
from unsee.neighbours import joint_features
from unsee.report.wording import METRICS
from unsee.sampling import Sampler
from unsee.train import train

FEW = {
    "steps": 2,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
    "stop_margin": -100.0,
}


def icu(**settings):
    return ICU.model_validate(FEW | settings)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def trained(vlm, split, method):
    train(vlm, split, method)
    return weights(vlm)


def beginning(vlm, split, method):
    names = method.trainable(vlm)
    for name, p in vlm.model.named_parameters():
        p.requires_grad_(name in names)
    return method.prepare(vlm, split, seed=0), Sampler(vlm, split, method, 0).draw(0)


def logits(vlm, batch):
    return vlm.model(**batch.inputs(), use_cache=False).logits


def test_pairs_are_the_nearest_kept_records(tiny_vlm, small_split):
    state, _ = beginning(tiny_vlm, small_split, icu())
    pool = [*small_split.retain, *small_split.general]
    features = dict(zip(pool, joint_features(tiny_vlm, pool), strict=True))
    assert set(state.nearest) == set(small_split.forget)
    assert set(state.nearest.values()) <= set(pool)
    assert len(set(state.nearest.values())) > 1
    own = joint_features(tiny_vlm, small_split.forget)
    for record, feature in zip(small_split.forget, own, strict=True):
        distances = {kept: (feature - other).norm().item() for kept, other in features.items()}
        chosen = distances[state.nearest[record]]
        assert chosen == pytest.approx(min(distances.values()), rel=1e-4)


def test_terms_are_those_of_the_formula(tiny_vlm, small_split):
    method = icu(forget_weight=0.6, retain_weight=0.7, kl_weight=0.8)
    state, batch = beginning(tiny_vlm, small_split, method)
    near = Sampler(tiny_vlm, small_split, method, 0)
    pairs = [state.nearest[record] for record in batch.forget.records]
    rows = near.encode(pairs, batch.forget.variants)
    with torch.no_grad():
        before = logits(tiny_vlm, rows)
        generator = torch.Generator().manual_seed(2)
        for name in method.trainable(tiny_vlm):
            p = tiny_vlm.model.get_parameter(name)
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    terms = method.loss(tiny_vlm, batch, state)
    forget, keep = (
        cross_entropy(logits(tiny_vlm, side.batch), side.batch.labels)
        for side in (batch.forget, batch.keep)
    )
    now = logits(tiny_vlm, rows)
    divergence = kl_to_reference(now, rows.labels, before)
    assert divergence > 1e-4
    expected = {
        "divergence": 0.8 * divergence,
        "nearest": 0.7 * cross_entropy(now, rows.labels),
        "answers": 0.7 * keep,
    }
    assert terms.forget["ascent"].item() == pytest.approx(-0.6 * forget.item(), rel=1e-4)
    assert {n: v.item() for n, v in terms.retain.items()} == pytest.approx(
        {n: v.item() for n, v in expected.items()}, rel=1e-3
    )


def test_a_weight_of_0_leaves_its_terms_out(tiny_vlm, small_split):
    state, batch = beginning(tiny_vlm, small_split, icu(retain_weight=0.0))
    assert set(icu(retain_weight=0.0).loss(tiny_vlm, batch, state).retain) == {"divergence"}
    assert set(icu(kl_weight=0.0).loss(tiny_vlm, batch, state).retain) == {"nearest", "answers"}


def test_what_is_forgotten_is_not_pushed_further(tiny_vlm, small_split):
    state, batch = beginning(tiny_vlm, small_split, icu())
    rows = batch.forget.batch
    with torch.no_grad():
        margins = answer_margin(logits(tiny_vlm, rows), rows.labels)
    low, high = sorted(margins.tolist())
    assert low < high
    # Both are active, one is, none is.
    for stop, active in (
        (low - 1, [0, 1]),
        ((low + high) / 2, [int(margins.argmax())]),
        (high, []),
    ):
        method = icu(stop_margin=stop)
        found = method.loss(tiny_vlm, batch, state).forget["ascent"]
        if not active:
            assert found == 0
            tiny_vlm.model.zero_grad(set_to_none=True)
            found.backward()
            gradients = [p.grad for p in tiny_vlm.model.parameters() if p.grad is not None]
            assert not any(gradient.any() for gradient in gradients)
            continue
        own = logits(tiny_vlm, rows)[active]
        expected = -cross_entropy(own, rows.labels[active]).item()
        assert found.item() == pytest.approx(expected, rel=1e-4)


def test_nothing_that_is_reported_decides_when_to_stop():
    assert not any("margin" in name for name in METRICS)


def test_the_starting_model_is_that_of_the_adapters_at_nothing(fresh, small_split):
    result = train(fresh(), small_split, icu(lora_rank=2))
    assert result.terms[0]["retain.divergence"] == pytest.approx(0, abs=1e-6)
    assert result.terms[1]["retain.divergence"] > 1e-5
