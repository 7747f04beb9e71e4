import pytest
import torch

from unsee.methods.grad_diff import GradDiff
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
}


def grad_diff(**settings):
    return GradDiff.model_validate(FEW | settings)


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


def linear_layers(vlm):
    return {n for n, module in vlm.model.named_modules() if isinstance(module, torch.nn.Linear)}


@pytest.mark.parametrize("retain_weight", [1.0, 0.3])
def test_terms_are_those_of_the_formula(retain_weight, tiny_vlm, small_split):
    method = grad_diff(retain_weight=retain_weight)
    batch = Sampler(tiny_vlm, small_split, method, 0).draw(0)
    terms = method.loss(tiny_vlm, batch, None)
    # Hugging Face's own loss on the same labels.
    forget, keep = (
        tiny_vlm.model(**rows.batch.inputs(), labels=rows.batch.labels).loss.item()
        for rows in (batch.forget, batch.keep)
    )
    assert set(terms.forget) == {"ascent"}
    assert set(terms.retain) == {"answers"}
    assert terms.forget["ascent"].item() == pytest.approx(-forget, rel=1e-5)
    assert terms.retain["answers"].item() == pytest.approx(retain_weight * keep, rel=1e-5)


def test_without_a_retain_weight_only_the_forget_side_is_run(tiny_vlm, small_split):
    method = grad_diff(retain_weight=0.0)
    batch = Sampler(tiny_vlm, small_split, method, 0).draw(0)
    terms = method.loss(tiny_vlm, batch, None)
    assert set(terms.forget) == {"ascent"}
    assert terms.retain == {}


def test_all_of_the_model_is_trained(tiny_vlm, small_split):
    method = grad_diff()
    names = [name for name, _ in tiny_vlm.model.named_parameters()]
    assert method.trainable(tiny_vlm) == names
    changed = set(train(tiny_vlm, small_split, method).changed)
    for part in ("vision.blocks[0]", "projector", "language.layers[0]", "head"):
        assert set(tiny_vlm.layout.parameter_names(tiny_vlm.model, [part])) <= changed


def test_adapters_are_on_every_linear_layer_but_the_head(tiny_vlm, small_split):
    method = grad_diff(lora_rank=2, steps=3)
    targets = method.lora_targets(tiny_vlm)
    assert set(targets) == linear_layers(tiny_vlm) - {tiny_vlm.layout.head}
    assert len(targets) == len(set(targets))
    before = weights(tiny_vlm)
    result = train(tiny_vlm, small_split, method)
    assert set(result.changed) == {f"{target}.weight" for target in targets}
    after = weights(tiny_vlm)
    assert [n for n in before if not torch.equal(before[n], after[n])] == [
        n for n in before if n in result.changed
    ]


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4}], ids=["full", "adapters"])
def test_forget_answers_become_less_likely(settings, tiny_vlm, small_split):
    result = train(tiny_vlm, small_split, grad_diff(steps=20, retain_weight=0.0, **settings))
    first, last = result.terms[0]["forget.ascent"], result.terms[-1]["forget.ascent"]
    assert last < first - 0.5
