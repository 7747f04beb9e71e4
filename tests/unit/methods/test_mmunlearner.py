import pytest
import torch

from unsee.losses import cross_entropy
from unsee.methods.grad_diff import GradDiff
from unsee.methods.mmunlearner import MMUnlearner
from unsee.saliency import fisher_ratio_mask
from unsee.sampling import Sampler
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


def mmunlearner(**settings):
    return MMUnlearner.model_validate(FEW | settings)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def trained(vlm, split, method):
    train(vlm, split, method)
    return weights(vlm)


def gradients(vlm, loss):
    loss.backward()
    found = {n: p.grad for n, p in vlm.model.named_parameters() if p.grad is not None}
    vlm.model.zero_grad(set_to_none=True)
    return found


def test_the_step_follows_the_formula(fresh, small_split):
    # Plain SGD shows the gradient itself; the loop's own clipping and moments are tested elsewhere.
    vlm, method = fresh(), mmunlearner(retain_weight=0.7, mask_threshold=1.5)
    state = method.prepare(vlm, small_split, seed=0)
    batch = Sampler(vlm, small_split, method, 0).draw(0)
    terms = method.loss(vlm, batch, state)
    torch.stack(list(terms.forget.values())).sum().backward()
    method.mask_forget(vlm, state)
    torch.stack(list(terms.retain.values())).sum().backward()
    found = {n: p.grad for n, p in vlm.model.named_parameters() if p.grad is not None}

    vlm = fresh()
    sampler = Sampler(vlm, small_split, method, 0)
    mask = fisher_ratio_mask(vlm, sampler, batches=1, threshold=1.5)
    forget, keep = (
        gradients(vlm, vlm.model(**rows.batch.inputs(), labels=rows.batch.labels).loss)
        for rows in (batch.forget, batch.keep)
    )
    assert found
    for name, gradient in found.items():
        expected = 0.7 * keep.get(name, 0) - mask[name] * forget.get(name, 0)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    share = sum(m.sum() for m in mask.values()) / sum(m.numel() for m in mask.values())
    assert 0.02 < share < 0.98


@pytest.mark.parametrize("lora_rank", [0, 2], ids=["full", "adapters"])
def test_a_mask_that_lets_nothing_through_leaves_descent_alone(lora_rank, fresh, small_split):
    barred = mmunlearner(mask_threshold=1e30, lora_rank=lora_rank)
    free = mmunlearner(mask_threshold=1e-30, lora_rank=lora_rank)
    both = GradDiff.model_validate(
        {k: v for k, v in FEW.items() if k != "mask_batches"}
        | {"retain_weight": 1.0, "lora_rank": lora_rank}
    )
    start = weights(fresh())
    descended, masked, plain = (trained(fresh(), small_split, m) for m in (barred, free, both))
    assert not all(torch.equal(start[name], descended[name]) for name in start)
    # With nothing barred, this is gradient difference.
    assert all(torch.equal(masked[name], plain[name]) for name in start)
    assert not all(torch.equal(descended[name], plain[name]) for name in start)


def test_nothing_barred_moves_before_adapters_have_a_gradient(fresh, small_split):
    """Of two factors, one begins at 0: the other's entries tie, and pass a threshold of 1."""
    vlm = fresh()
    masks = {}
    original = MMUnlearner.prepare

    class Seen(MMUnlearner):
        def prepare(self, vlm, split, *, seed):
            masks.update(original(self, vlm, split, seed=seed))
            return masks

    train(vlm, small_split, Seen.model_validate(FEW | {"lora_rank": 2}))
    assert masks
    assert all("lora_" in name for name in masks)
    assert all(mask.all() for name, mask in masks.items() if "lora_A" in name)
    touched = torch.cat([m.flatten() for n, m in masks.items() if "lora_B" in n])
    assert 0.02 < touched.mean() < 0.98


def test_answers_of_both_sides_are_scored(tiny_vlm, small_split):
    method = mmunlearner(retain_weight=0.5)
    batch = Sampler(tiny_vlm, small_split, method, 0).draw(0)
    terms = method.loss(tiny_vlm, batch, {})
    losses = [
        cross_entropy(tiny_vlm.model(**rows.batch.inputs()).logits, rows.batch.labels).item()
        for rows in (batch.forget, batch.keep)
    ]
    assert terms.forget["ascent"].item() == pytest.approx(-losses[0], rel=1e-5)
    assert terms.retain["answers"].item() == pytest.approx(0.5 * losses[1], rel=1e-5)
