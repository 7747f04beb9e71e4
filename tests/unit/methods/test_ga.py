from dataclasses import replace

import pytest
import torch

from unsee.errors import ConfigError
from unsee.methods.ga import GA
from unsee.sampling import Sampler
from unsee.settings import resolve
from unsee.train import train

FEW = {"steps": 3, "lr": 1e-2, "forget_batch": 3, "variants": 2, "checkpoint_every": 0}


def test_the_term_is_that_of_the_formula_and_the_only_one(tiny_vlm, small_split):
    method = GA.model_validate(FEW)
    batch = Sampler(tiny_vlm, small_split, method, 0).draw(0)
    terms = method.loss(tiny_vlm, batch, None)
    forget = batch.forget.batch
    expected = -tiny_vlm.model(**forget.inputs(), labels=forget.labels).loss.item()
    assert set(terms.forget) == {"ascent"}
    assert terms.retain == {}
    assert terms.forget["ascent"].item() == pytest.approx(expected, rel=1e-5)
    assert batch.keep.records == ()


@pytest.mark.parametrize("lora_rank", [0, 2], ids=["full", "adapters"])
def test_it_needs_nothing_to_keep_and_reads_nothing_of_it(lora_rank, tiny_vlm, small_split):
    method = GA.model_validate(FEW | {"lora_rank": lora_rank})
    start = {name: tensor.clone() for name, tensor in tiny_vlm.model.state_dict().items()}
    ends = []
    for split in (small_split, replace(small_split, retain=(), general=(), visible=())):
        tiny_vlm.model.load_state_dict(start)
        train(tiny_vlm, split, method)
        ends.append({name: t.clone() for name, t in tiny_vlm.model.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
    assert any(not torch.equal(ends[0][name], start[name]) for name in start)


@pytest.mark.parametrize("field", ["visible_batch", "retain_batch", "general_batch"])
def test_a_batch_to_keep_is_refused(field):
    message = f"^method: {field}: input should be less than or equal to 0 \\(got 4\\)$"
    with pytest.raises(ConfigError, match=message):
        resolve(GA, {field: 4}, where="method")
