import pytest
import torch

from unsee.losses import mean_squared_states, representation_deviation
from unsee.methods.kuda import KUDA, relaxed_null_space
from unsee.models.hooks import captured
from unsee.neurons import key_covariances
from unsee.sampling import Sampler
from unsee.tracing import causal_effects, strongest_window
from unsee.train import may_change, train

FEW = {
    "steps": 3,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
    "window": 2,
}


def kuda(**settings):
    return KUDA.model_validate(FEW | settings)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def trained(vlm, split, method):
    train(vlm, split, method)
    return weights(vlm)


def kept(split):
    return (*split.retain, *split.general, *split.visible)


# The projector.


def test_projector_by_hand():
    found = relaxed_null_space(torch.diag(torch.tensor([4.0, 1.0, 0.0])), relaxation=0.25)
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.2, 0.5, 1.0])))


def test_projector_of_little_and_of_much_relaxation():
    keys = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    covariance = keys.mT @ keys / 3
    hard = relaxed_null_space(covariance, relaxation=1e-9)
    # Keys are mapped to nothing; what is at right angles to all of them stays.
    torch.testing.assert_close(keys @ hard, torch.zeros(3, 8).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(hard @ hard, hard, atol=1e-6, rtol=0)
    assert hard.trace().item() == pytest.approx(5)
    torch.testing.assert_close(
        relaxed_null_space(covariance, relaxation=1e9), torch.eye(8).double(), atol=1e-6, rtol=0
    )


def test_projector_as_a_slow_inverse():
    keys = torch.randn(20, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    covariance = keys.mT @ keys / 20
    top = torch.linalg.eigvalsh(covariance)[-1]
    expected = 0.3 * torch.linalg.inv(covariance / top + 0.3 * torch.eye(6).double())
    found = relaxed_null_space(covariance, relaxation=0.3)
    torch.testing.assert_close(found, expected)
    values = torch.linalg.eigvalsh(found)
    assert values.min() == pytest.approx(0.3 / 1.3)
    assert values.max() <= 1 + 1e-9


def test_projector_without_keys_leaves_everything():
    found = relaxed_null_space(torch.zeros(4, 4), relaxation=0.1)
    torch.testing.assert_close(found, torch.eye(4))


# The run.


def test_a_traced_window_moves_and_nothing_else(fresh, small_split):
    vlm, method = fresh(), kuda()
    names = method.trainable(vlm)
    effects = causal_effects(vlm, list(small_split.forget), noise=3.0, seed=0)
    # The order of the draw decides the noise: the window is compared, not the effects.
    result = train(vlm, small_split, method)
    moved = [names.index(name) for name in result.changed]
    assert moved == list(range(moved[0], moved[0] + 2))
    assert result.trained_parameters == 2 * vlm.model.get_parameter(names[0]).numel()
    assert set(may_change(vlm, method)) == set(names)
    assert len(effects) == len(names)


def test_the_window_is_that_of_the_greatest_effect(fresh, small_split, monkeypatch):
    for effects, expected in (([5.0, 1.0, 0.0], (0, 1)), ([0.0, 1.0, 5.0], (1, 2))):
        monkeypatch.setattr(
            "unsee.methods.kuda.causal_effects",
            lambda *args, effects=effects, **more: torch.tensor(effects),
        )
        vlm = fresh()
        changed = train(vlm, small_split, kuda()).changed
        assert list(changed) == [kuda().trainable(vlm)[k] for k in expected]
    assert strongest_window(torch.tensor(effects), 2) == range(1, 3)


def test_every_step_is_projected(fresh, small_split):
    """One step, in directions that AdamW would leave if the gradient were projected instead."""
    vlm, method = fresh(), kuda(steps=1, relaxation=1e-4)
    before = weights(vlm)
    changed = train(vlm, small_split, method).changed
    records = list(kept(small_split))
    found = key_covariances(vlm, records, [name.removesuffix(".weight") for name in changed])
    free = trained(fresh(), small_split, kuda(steps=1, relaxation=1e9))
    for path, covariance in found.items():
        step = vlm.model.get_parameter(f"{path}.weight").detach() - before[f"{path}.weight"]
        loose = free[f"{path}.weight"] - before[f"{path}.weight"]
        # How much of what is kept a step touches: ||step C^(1/2)||^2.
        touched, could = ((s @ covariance * s).sum() for s in (step, loose))
        assert step.any()
        assert touched < 0.05 * could


def test_terms_are_those_of_the_formula(tiny_vlm, small_split, monkeypatch):
    monkeypatch.setattr("unsee.methods.kuda._nudged", lambda states, seed: states)
    method = kuda(forget_weight=0.6, retain_weight=0.7, temperature=0.3)
    state = method.prepare(tiny_vlm, small_split, seed=0)
    batch = Sampler(tiny_vlm, small_split, method, 0).draw(0)

    def run(rows):
        with captured(tiny_vlm.model, {path: path for path in state.layers}) as outputs:
            tiny_vlm.model(**rows.batch.inputs(), use_cache=False)
        return list(outputs.values())

    with torch.no_grad():
        start = [run(rows) for rows in (batch.forget, batch.keep)]
        generator = torch.Generator().manual_seed(2)
        for name in state.projectors:
            p = tiny_vlm.model.get_parameter(name)
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
        now = [run(rows) for rows in (batch.forget, batch.keep)]
    labels = [rows.batch.labels for rows in (batch.forget, batch.keep)]
    away = [
        representation_deviation(h, labels[0], h0, temperature=0.3)
        for h, h0 in zip(now[0], start[0], strict=True)
    ]
    held = [mean_squared_states(h, labels[1], h0) for h, h0 in zip(now[1], start[1], strict=True)]
    terms = method.loss(tiny_vlm, batch, state)
    assert terms.forget["deviation"].item() == pytest.approx(
        0.6 * torch.stack(away).mean().item(), rel=1e-4
    )
    assert terms.retain["states"].item() == pytest.approx(
        0.7 * torch.stack(held).mean().item(), rel=1e-4
    )
    assert held[0] > 1e-4


def test_states_leave_where_they_were(fresh, small_split):
    method = kuda(steps=30, lr=5e-2, retain_weight=0.0, relaxation=1e3)
    terms = train(fresh(), small_split, method).terms
    assert terms[-1]["forget.deviation"] < terms[0]["forget.deviation"] - 0.15


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", 1),
        ("temperature", 3.0),
        ("forget_weight", 0.1),
        ("retain_weight", 20.0),
        ("relaxation", 5.0),
        ("keys", 1),
    ],
)
def test_fields_of_its_own_change_what_is_done(field, value, fresh, small_split):
    plain = trained(fresh(), small_split, kuda())
    moved = trained(fresh(), small_split, kuda(**{field: value}))
    assert any(not torch.equal(plain[name], moved[name]) for name in plain)


def test_facts_and_noise_are_those_that_are_traced(fresh, small_split, monkeypatch):
    given = []

    def effects(vlm, records, *, noise, seed):
        given.append((len(records), noise, seed))
        return torch.zeros(3)

    monkeypatch.setattr("unsee.methods.kuda.causal_effects", effects)
    kuda(facts=3, noise=1.5).prepare(fresh(), small_split, seed=4)
    assert given == [(3, 1.5, 4)]
