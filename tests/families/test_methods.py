"""Methods that look inside a model find what they need in every family."""

import pytest
import torch

from unsee.errors import LayoutError
from unsee.methods.icu import ICU
from unsee.methods.kuda import KUDA
from unsee.methods.kvw import KVW
from unsee.methods.manu import MANU
from unsee.methods.sineproject import SineProject
from unsee.methods.unlok import MaxEntropy
from unsee.train import may_change, train

FEW = {
    "steps": 1,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 1,
    "checkpoint_every": 0,
}
SURGERY = {
    "manu": MANU.model_validate({"share": 0.1, "records": 4}),
    "kvw": KVW.model_validate({"gamma": 0.5, "records": 4, "batch_size": 8}),
}
TRAINED = {
    "icu": ICU.model_validate(FEW | {"pool": 3, "stop_margin": -1e3}),
    "kuda": KUDA.model_validate(FEW | {"window": 1, "facts": 2, "keys": 3}),
    "max_entropy": MaxEntropy.model_validate(FEW),
    "sineproject": SineProject.model_validate(FEW | {"parts": ()}),
}


def weights(vlm):
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


@pytest.mark.parametrize("method", SURGERY.values(), ids=SURGERY)
def test_surgery(method, vlm, small_split):
    before = weights(vlm)
    changed = method.edit(vlm, small_split, seed=0)
    after = weights(vlm)
    assert changed
    assert {n for n in before if not torch.equal(before[n], after[n])} == set(changed)
    assert set(changed) <= set(may_change(vlm, method))


@pytest.mark.parametrize("method", TRAINED.values(), ids=TRAINED)
def test_training(method, vlm, small_split):
    if vlm.layout.family == "gemma3" and isinstance(method, SineProject):
        with pytest.raises(LayoutError, match="in the projector of gemma3, got none; choose anot"):
            train(vlm, small_split, method)
        return
    names = list(weights(vlm))
    result = train(vlm, small_split, method)
    assert result.changed
    assert set(result.changed) <= set(may_change(vlm, method))
    assert list(weights(vlm)) == names
