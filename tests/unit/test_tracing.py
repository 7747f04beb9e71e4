import pytest
import torch

from unsee.data.collate import encode
from unsee.losses import sequence_logprob
from unsee.tracing import causal_effects, strongest_window


@pytest.mark.parametrize(
    ("width", "expected"),
    [(1, range(3, 4)), (2, range(2, 4)), (3, range(1, 4)), (9, range(5))],
)
def test_the_strongest_window_by_hand(width, expected):
    assert strongest_window(torch.tensor([0.1, 0.3, 0.2, 0.5, -0.4]), width) == expected


def test_the_strongest_window_as_a_slow_loop():
    effects = torch.randn(12, generator=torch.Generator().manual_seed(4))
    for width in range(1, 13):
        totals = [sum(effects[s : s + width].tolist()) for s in range(12 - width + 1)]
        first = totals.index(max(totals))
        assert strongest_window(effects, width) == range(first, first + width)
    assert strongest_window(torch.zeros(4), 2) == range(2)


@pytest.fixture
def knowing(tiny_vlm, small_split):
    """The tiny model after it learned some answers by heart."""
    optimizer = torch.optim.AdamW(tiny_vlm.model.parameters(), lr=5e-3)
    batch = encode(tiny_vlm, small_split.forget[:4], answers=True, side="right")
    for _ in range(40):
        tiny_vlm.model(**batch.inputs(), labels=batch.labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return tiny_vlm


def test_effects_as_a_slow_loop(knowing, small_split):
    """Layer by layer and record by record, with hooks of our own."""
    model, layers = knowing.model, knowing.model.model.language_model.layers
    records = small_split.forget[:2]
    token = model.config.image_token_id
    expected = torch.zeros(len(layers))
    for number, record in enumerate(records):
        batch = encode(knowing, [record], answers=True, side="right")
        shown = batch.input_ids == token
        generator = torch.Generator().manual_seed(int.from_bytes(f"7-{number}".encode(), "big"))

        def spoil(module, args, kwargs, shown=shown, generator=generator):
            hidden = (args[0] if args else kwargs["hidden_states"]).clone()
            state = generator.get_state()
            own = hidden[shown]
            hidden[shown] = own + 2.0 * own.std() * torch.randn(own.shape, generator=generator)
            generator.set_state(state)
            return (
                ((hidden, *args[1:]), kwargs)
                if args
                else (args, {**kwargs, "hidden_states": hidden})
            )

        def chance(batch=batch):
            with torch.no_grad():
                logits = model(**batch.inputs(), use_cache=False).logits
            return sequence_logprob(logits, batch.labels).exp().item()

        clean = {}
        for k, layer in enumerate(layers):
            layer.mlp.register_forward_hook(
                lambda m, i, o, k=k, clean=clean: clean.__setitem__(k, o)
            )
        chance()
        for layer in layers:
            layer.mlp._forward_hooks.clear()
        spoiler = layers[0].register_forward_pre_hook(spoil, with_kwargs=True)
        spoilt = chance()
        for k, layer in enumerate(layers):
            back = layer.mlp.register_forward_hook(lambda m, i, o, k=k, clean=clean: clean[k])
            expected[k] += (chance() - spoilt) / len(records)
            back.remove()
        spoiler.remove()
    found = causal_effects(knowing, records, noise=2.0, seed=7, batch_size=1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert found.abs().max() > 1e-3


def hooks(model):
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


def test_without_noise_nothing_is_put_back(knowing, small_split):
    records = small_split.forget[:4]
    before = {name: tensor.clone() for name, tensor in knowing.model.state_dict().items()}
    # Hugging Face's own, from the passes before.
    listening = hooks(knowing.model)
    assert causal_effects(knowing, records, noise=1e-6).abs().max() < 1e-3
    some = causal_effects(knowing, records, noise=3.0)
    assert some.shape == (3,)
    assert some.abs().max() > 1e-3
    assert torch.equal(some, causal_effects(knowing, records, noise=3.0))
    after = knowing.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert hooks(knowing.model) == listening
