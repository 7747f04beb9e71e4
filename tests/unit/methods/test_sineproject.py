import pytest
import torch

from unsee.checkpoint import CHECKPOINT
from unsee.losses import gradient_ascent, npo, sequence_logprob, unlikelihood
from unsee.methods.sineproject import SineProject
from unsee.sampling import Sampler
from unsee.train import may_change, train

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


def sineproject(**settings):
    return SineProject.model_validate(FEW | settings)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def trained(vlm, split, method):
    train(vlm, split, method)
    return weights(vlm)


def projector(vlm):
    return vlm.layout.parameter_names(vlm.model, ["projector"])


@pytest.mark.parametrize("lora_rank", [0, 2], ids=["full", "adapters"])
def test_what_moves(lora_rank, fresh, small_split):
    vlm, method = fresh(), sineproject(lora_rank=lora_rank)
    before = weights(vlm)
    changed = set(train(vlm, small_split, method).changed)
    bounded = {name for name in projector(vlm) if name.endswith(".weight")}
    assert bounded <= changed <= set(may_change(vlm, method))
    assert not changed & (set(projector(vlm)) - bounded)
    assert not changed & set(vlm.layout.parameter_names(vlm.model, ["vision"]))
    assert changed & set(vlm.layout.parameter_names(vlm.model, ["language"]))
    after = weights(vlm)
    assert list(before) == list(after)
    assert {n for n in before if not torch.equal(before[n], after[n])} == changed
    assert not any("parametrizations" in name for name in after)


def test_the_projector_alone(fresh, small_split):
    vlm = fresh()
    changed = train(vlm, small_split, sineproject(parts=())).changed
    assert set(changed) == {name for name in projector(vlm) if name.endswith(".weight")}


def test_a_part_that_holds_the_projector_frees_its_biases_only(fresh, small_split):
    vlm = fresh()
    method = sineproject(parts=("projector",))
    assert set(method.trainable(vlm)) == {n for n in projector(vlm) if n.endswith(".bias")}
    assert set(train(vlm, small_split, method).changed) == set(projector(vlm))


def test_no_weight_of_the_projector_goes_further_than_one(fresh, small_split):
    vlm = fresh()
    before = weights(vlm)
    train(vlm, small_split, sineproject(parts=(), lr=2.0, clip=1e6, steps=6, retain_weight=0.0))
    moved = [
        (vlm.model.get_parameter(name) - before[name]).abs().max()
        for name in projector(vlm)
        if name.endswith(".weight")
    ]
    assert max(moved) > 0.9
    assert max(moved) <= 1 + 1e-6


@pytest.mark.parametrize("forget_loss", ["ascent", "npo", "unlikelihood"])
def test_terms_are_those_of_the_formula(forget_loss, tiny_vlm, small_split):
    method = sineproject(forget_loss=forget_loss, beta=0.3, retain_weight=0.7)
    batch = Sampler(tiny_vlm, small_split, method, 0).draw(0)
    for name, p in tiny_vlm.model.named_parameters():
        p.requires_grad_(name in method.trainable(tiny_vlm))
    start = batch.forget.batch
    with torch.no_grad():
        before = sequence_logprob(tiny_vlm.model(**start.inputs()).logits, start.labels)
    state = method.prepare(tiny_vlm, small_split, seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in method.trainable(tiny_vlm):
            p = tiny_vlm.model.get_parameter(name)
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    logits = tiny_vlm.model(**start.inputs()).logits
    expected = {
        "ascent": lambda: gradient_ascent(logits, start.labels),
        "unlikelihood": lambda: unlikelihood(logits, start.labels),
        "npo": lambda: npo(sequence_logprob(logits, start.labels), before, beta=0.3),
    }[forget_loss]()
    terms = method.loss(tiny_vlm, batch, state)
    assert set(terms.forget) == {forget_loss}
    assert terms.forget[forget_loss].item() == pytest.approx(expected.item(), rel=1e-4)
    keep = batch.keep.batch
    answers = tiny_vlm.model(**keep.inputs(), labels=keep.labels).loss.item()
    assert terms.retain["answers"].item() == pytest.approx(0.7 * answers, rel=1e-4)


@pytest.mark.parametrize("lora_rank", [0, 2], ids=["full", "adapters"])
def test_an_interrupted_run_continues_to_the_same_weights(lora_rank, fresh, small_split, tmp_path):
    method = sineproject(steps=3, checkpoint_every=1, lora_rank=lora_rank)
    expected = trained(fresh(), small_split, method)

    def stop(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    vlm = fresh()
    before = weights(vlm)
    with pytest.raises(KeyboardInterrupt):
        train(vlm, small_split, method, folder=tmp_path, progress=stop)
    assert (tmp_path / CHECKPOINT).exists()
    bounded = [name for name in projector(vlm) if name.endswith(".weight")]
    assert all(torch.equal(before[name], vlm.model.get_parameter(name)) for name in bounded)
    vlm = fresh()
    train(vlm, small_split, method, folder=tmp_path)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(vlm).items())


def test_a_change_that_is_of_low_rank_only_in_part_is_no_adapter(fresh, small_split):
    assert train(fresh(), small_split, sineproject(lora_rank=2)).adapter == {}
