import pytest
import torch

from unsee.data.collate import Batch
from unsee.losses import cross_entropy
from unsee.methods.vkd import VKD
from unsee.saliency import apply_mask, fisher_ratio_mask
from unsee.sampling import Sampler

METHOD = VKD.model_validate(
    {"forget_batch": 2, "visible_batch": 1, "retain_batch": 2, "general_batch": 1, "variants": 2}
)


@pytest.fixture
def sampler(tiny_vlm, small_split):
    return Sampler(tiny_vlm, small_split, METHOD, 3)


@pytest.fixture
def names(tiny_vlm):
    """The only parameters that require a gradient: vision tower and projector."""
    chosen = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["vision", "projector"])
    for name, p in tiny_vlm.model.named_parameters():
        p.requires_grad_(name in chosen)
    return chosen


def gradient(vlm, batch: Batch, name):
    """Gradient of the mean loss of a batch with respect to one parameter, as a list."""
    logits = vlm.model(**batch.inputs(), use_cache=False).logits
    loss = cross_entropy(logits, batch.labels)
    (found,) = torch.autograd.grad(loss, [vlm.model.get_parameter(name)], allow_unused=True)
    return [] if found is None else found.flatten().tolist()


def test_mask_as_a_slow_loop(tiny_vlm, sampler, names):
    masks = fisher_ratio_mask(tiny_vlm, sampler, batches=2, threshold=1.3)
    assert list(masks) == names
    draws = [sampler.draw(-1), sampler.draw(-2)]
    compared = 0
    for name in names:
        forget, keep = (
            [gradient(tiny_vlm, batch, name) for batch in side]
            for side in ([d.forget.batch for d in draws], [d.keep.batch for d in draws])
        )
        mask = masks[name]
        assert mask.shape == tiny_vlm.model.get_parameter(name).shape
        for position, found in enumerate(mask.flatten().tolist()[:200]):
            if not forget[0]:
                ratio = 1.0
            else:
                g_f = sum(g[position] ** 2 for g in forget) / 2
                g_r = sum(g[position] ** 2 for g in keep) / 2
                ratio = (g_f + 1e-15) / (g_r + 1e-15)
            assert found in (0, 1)
            # Rounding may decide at the threshold itself.
            if abs(ratio / 1.3 - 1) > 1e-3:
                assert found == (ratio >= 1.3), name
                compared += 1
    assert compared > 3000


def test_a_higher_threshold_lets_fewer_weights_through(tiny_vlm, sampler, names):
    shares = []
    for threshold in (1e-6, 1.0, 4.0, 1e9):
        masks = fisher_ratio_mask(tiny_vlm, sampler, batches=1, threshold=threshold)
        touched = [n for n in names if "post_layernorm" not in n]
        shares.append(torch.cat([masks[n].flatten() for n in touched]).mean().item())
    assert shares[0] > 0.9
    assert shares[0] > shares[1] > shares[2] > shares[3]
    assert shares[3] < 0.01


def test_a_weight_that_nothing_depends_on_counts_as_a_tie(tiny_vlm, sampler, names):
    # LLaVA reads the tower before its last norm.
    name = next(n for n in names if "post_layernorm" in n)
    for threshold, expected in ((1.0, 1), (1.01, 0)):
        mask = fisher_ratio_mask(tiny_vlm, sampler, batches=1, threshold=threshold)[name]
        assert (mask == expected).all()


def test_scoring_leaves_weights_flags_and_gradients(tiny_vlm, sampler, names):
    before = {name: p.detach().clone() for name, p in tiny_vlm.model.named_parameters()}
    fisher_ratio_mask(tiny_vlm, sampler, batches=2, threshold=1.0)
    for name, p in tiny_vlm.model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.grad is None
        assert p.requires_grad == (name in names)


def test_a_mask_is_drawn_from_other_batches_than_training(sampler, names, tiny_vlm, monkeypatch):
    steps = []
    draw = Sampler.draw
    monkeypatch.setattr(Sampler, "draw", lambda self, step: steps.append(step) or draw(self, step))
    fisher_ratio_mask(tiny_vlm, sampler, batches=3, threshold=1.0)
    assert all(step < 0 for step in steps)
    assert len(set(steps)) == 3


def test_a_mask_multiplies_gradients_where_there_are_any(tiny_vlm):
    named = dict(tiny_vlm.model.named_parameters())
    first, second, third, *_ = named
    for name in (first, second):
        named[name].grad = torch.full_like(named[name], 2.0)
    half = torch.ones_like(named[first])
    half.flatten()[::2] = 0
    apply_mask(tiny_vlm, {first: half, third: torch.zeros_like(named[third])})
    gradients = [named[name].grad for name in (first, second, third)]
    assert gradients[0] is not None
    assert torch.equal(gradients[0], 2 * half)
    assert gradients[1] is not None
    assert (gradients[1] == 2).all()
    assert gradients[2] is None
